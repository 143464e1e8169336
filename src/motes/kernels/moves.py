"""Sweeps of a kernel until the particles have forgotten where they started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from motes.kernels.kernel import Kernel, Parameters, State, Target, mean_acceptance
from motes.rng import Rng

PATIENCE, FALL = 10, 0.05
"""Sweeps in which the correlation must fall by this part for more sweeps to be worth it."""


@dataclass(frozen=True)
class Moved:
    """What a move did.

    Attributes:
        state: the particles after it.
        parameters: the kernel's parameters, for the next move.
        used: the parameters of its last sweep.
        sweeps: how many there were.
        info: "acceptance" (weighted mean), "sweeps", "evaluations" (a particle), "correlation" with the start, and what
            the kernel says of its parameters.
    """

    state: State
    parameters: Parameters
    used: Parameters
    sweeps: int
    info: dict[str, float]


def move(
    kernel: Kernel,
    rng: Rng,
    target: Target,
    state: State,
    weight: Tensor,
    parameters: Parameters,
    *,
    sweeps: int | Literal["auto"] = "auto",
    max_correlation: float = 0.5,
    most: int = 100,
    adapt: bool = True,
    watch: Callable[[State], Tensor] | None = None,
    every: bool = False,
) -> Moved:
    """Move every particle by sweeps of `kernel`, which leaves `target` invariant.

    Args:
        state: the particles, as `target` evaluated them.
        weight: (N,) their normalised weights.
        parameters: of the kernel.
        sweeps: how many; "auto" goes on until the correlation of positions and log-density with the start is at most
            `max_correlation`, or no longer falls (it levels off where particles cannot change between separate modes),
            or for `most` sweeps. The rule looks at the population, so like all adaptation it biases by O(1/N).
        adapt: learn the step size after each sweep.
        watch: (N,) float64, what has to forget its start instead of the log-density; then sweeps go on even
            while the correlation is level.
        every: whether each coordinate has to forget its start, and not their mean.
    """
    patient, watch = watch is not None, watch or target.log_density
    x, old = state["position"], watch(state)
    state = kernel.enter(rng.at("enter"), target, state, parameters)
    used, done, evaluations, rate, left = parameters, 0, 0.0, 0.0, 1.0
    path: list[float] = []
    auto, limit = sweeps == "auto", most if sweeps == "auto" else sweeps
    while done < limit and not (auto and left <= max_correlation):
        if auto and not patient and level(path):
            break
        sweep = kernel.sweep(rng.at("sweep", inner=done), target, state, parameters)
        state, done, evaluations = sweep.state, done + 1, evaluations + sweep.evaluations
        rate, used = mean_acceptance(sweep, weight), parameters
        if adapt:
            parameters = kernel.learn(parameters, sweep, weight)
        if auto or done == sweeps:
            left = correlation(weight, x, old, state["position"], watch(state), every)
            path.append(left)
    info = {"acceptance": rate, "sweeps": float(done), "evaluations": evaluations, "correlation": left}
    info |= target.told(len(weight) * done)
    return Moved(state, parameters, used, done, info | kernel.describe(used))


def level(path: list[float]) -> bool:
    """Whether the correlation has stopped falling: by less than `FALL` in the last `PATIENCE` sweeps."""
    return len(path) > PATIENCE and path[-1] > (1 - FALL) * path[-1 - PATIENCE]


def correlation(weight: Tensor, x0: Tensor, f0: Tensor, x1: Tensor, f1: Tensor, every: bool = False) -> float:
    """The larger of the correlation of the coordinates (N, d), mean or largest, and that of the log-densities (N,)."""
    positive = weight > 0
    f0, f1 = torch.where(positive, f0, 0.0), torch.where(positive, f1, 0.0)  # weight 0 may have density 0
    before, after = torch.column_stack([x0.to(f0), f0]), torch.column_stack([x1.to(f1), f1])
    r = _pearson(weight, before, after)
    return max(float(r[:-1].max() if every else r[:-1].mean()), float(r[-1]))


def _pearson(w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Weighted correlation of the columns of `a` and `b`; 1 for a column that does not vary."""
    a, b = a - w @ a, b - w @ b
    scale = ((w @ a.square()) * (w @ b.square())).sqrt()
    return torch.where(scale > 0, (w @ (a * b)) / scale, 1.0)
