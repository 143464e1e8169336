"""A curved law with exact draws and known expectations, for tests of kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.kernels import Kernel, Parameters, State, Target
from motes.rng import Rng


class Bent(Target):
    """a ~ N(0, 1), and b ~ N(a^2 / 2, 1 / 4) given a; further coordinates are standard normal."""

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        a, off = position[:, 0], position[:, 1] - 0.5 * position[:, 0].square()
        value = -0.5 * a.square() - 2 * off.square() - 0.5 * position[:, 2:].square().sum(1)
        state = {"position": position, "value": value}
        if gradient:
            state["slope"] = torch.column_stack([-a + 4 * off * a, -4 * off, -position[:, 2:]])
        return state

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        a, b, v, w = position[:, 0], position[:, 1], vector[:, 0], vector[:, 1]
        return torch.column_stack([(4 * b - 6 * a.square() - 1) * v + 4 * a * w, 4 * a * v - 4 * w, -vector[:, 2:]])

    @staticmethod
    def draw(rng: Rng, n: int, d: int = 2) -> Tensor:
        x = rng.normal((n, d))
        x[:, 1] = 0.5 * x[:, 0].square() + 0.5 * x[:, 1]
        return x


def bias(x: Tensor) -> float:
    """The largest z-score of six moments of draws from `Bent`."""
    a, b = x[:, 0], x[:, 1]
    moments = [(a, 0.0), (a**2, 1.0), (b, 0.5), (b**2, 1.0), (a * b, 0.0), (a**2 * b, 1.5)]
    return max(abs(float(f.mean()) - truth) / float(f.std()) * math.sqrt(len(x)) for f, truth in moments)


def after(
    kernel: Kernel, rng: Rng, x: Tensor, sweeps: int = 3, target: Target | None = None, knobs: Parameters | None = None
) -> Tensor:
    """Where `sweeps` sweeps of a kernel take x (N, d), with its starting parameters."""
    target = target or Bent()
    parameters = {**kernel.start(x.shape[1], x.dtype), **(knobs or {})}
    state = kernel.enter(rng.at("enter"), target, target.evaluate(x, kernel.gradient), parameters)
    for i in range(sweeps):
        state = kernel.sweep(rng.at("sweep", inner=i), target, state, parameters).state
    return state["position"]
