"""Laws with exact draws and known expectations, on which kernels are tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta, Gamma, Normal

from motes.errors import MotesError
from motes.kernels import State, Target
from motes.laws import Density, Discrete
from motes.laws.tempered import Tempered
from motes.rng import Rng
from motes.testing.violation import Means

MOST_STATES = 1000
"""States of a law on whole numbers that are enumerated."""


@dataclass(frozen=True)
class ExactLaw:
    """A law on R^d that can be drawn from, with functions whose expectations are known.

    Attributes:
        target: its log-density, up to a constant.
        draw: (rng, n) to (n, d) independent draws.
        means: positions (n, d) to functions (n,) by name, each with its expectation.
    """

    target: Target
    draw: Callable[[Rng, int], Tensor]
    means: Callable[[Tensor], Means]


def bounded() -> ExactLaw:
    """p ~ Beta(2, 3), r ~ Gamma(3, 2) and m ~ N(0, 1), independent, in coordinates without bounds."""
    one = torch.ones((), dtype=torch.float64)
    prior = {"p": Beta(2 * one, 3 * one), "r": Gamma(3 * one, 2 * one), "m": Normal(0 * one, 1 * one)}
    density = Density(lambda v: 0.0 * v["m"], prior, vectorised=True)

    def means(z: Tensor) -> Means:
        v = density.constrain(z)
        assert isinstance(v, dict)
        return {
            "p": (v["p"], 2 / 5),
            "p^2": (v["p"] ** 2, 2 / 5 * 3 / 6),
            "p < 1/4": ((v["p"] < 0.25).double(), 0.26171875),
            "r": (v["r"], 3 / 2),
            "r^2": (v["r"] ** 2, 3 * 4 / 4),
            "m^2": (v["m"] ** 2, 1.0),
            "p m": (v["p"] * v["m"], 0.0),
        }

    return ExactLaw(Tempered(density, 1.0), density.sample, means)


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
        """(n, d) independent draws."""
        x = rng.normal((n, d))
        x[:, 1] = 0.5 * x[:, 0].square() + 0.5 * x[:, 1]
        return x

    @staticmethod
    def means(x: Tensor) -> Means:
        """Six moments of a and b."""
        a, b = x[:, 0], x[:, 1]
        moments = {"a": (a, 0.0), "a^2": (a**2, 1.0), "b": (b, 0.5), "b^2": (b**2, 1.0)}
        return {**moments, "a b": (a * b, 0.0), "a^2 b": (a**2 * b, 1.5)}


def bent(d: int = 2) -> ExactLaw:
    """A curved law on R^d: b ~ N(a^2 / 2, 1 / 4) given a ~ N(0, 1), the rest standard normal."""
    return ExactLaw(Bent(), lambda rng, n: Bent.draw(rng, n, d), Bent.means)


class Conjugate(Target):
    """The posterior of each replicate: prior N(0, I) on R^2, data y ~ N((a + b^2 / 2, b), I / 4), all different."""

    def __init__(self, y: Tensor):
        self.y = y

    @staticmethod
    def mean(x: Tensor) -> Tensor:
        """(N, 2) what the data scatter about."""
        return torch.stack([x[:, 0] + 0.5 * x[:, 1].square(), x[:, 1]], 1)

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        off = self.y - self.mean(position)
        state = {"position": position, "value": -0.5 * position.square().sum(1) - 2 * off.square().sum(1)}
        if gradient:
            slope = torch.stack([4 * off[:, 0], 4 * off[:, 0] * position[:, 1] + 4 * off[:, 1]], 1)
            state["slope"] = slope - position
        return state

    def part(self, index: Tensor) -> Target:
        return Conjugate(self.y[index])

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


def enumerated(law: Discrete) -> tuple[Tensor, Tensor]:
    """All states (S, d) of a law on whole numbers, and their probabilities (S,).

    Raises:
        MotesError: there are too many.
    """
    assert law.levels is not None
    if law.levels**law.dim > MOST_STATES:
        raise MotesError(
            f"a law on {law.levels}^{law.dim} states is too large to enumerate: give one of at most {MOST_STATES}"
        )
    states = torch.tensor(list(itertools.product(range(law.levels), repeat=law.dim)), dtype=law.dtype)
    return states, torch.softmax(law.evaluate(states)["log_likelihood"], 0)


def index(law: Discrete, x: Tensor) -> Tensor:
    """(N,) int64, which of the enumerated states each row is."""
    assert law.levels is not None
    place = torch.tensor([law.levels ** (law.dim - 1 - i) for i in range(law.dim)], dtype=x.dtype)
    return (x @ place).long()


def coupled(kind: str) -> Discrete:
    """A law on few whole numbers with pairwise couplings: four "bits", three "labels" or three "ordinal" numbers."""
    d, levels = (4, 2) if kind == "bits" else (3, 3)
    one_hot = kind == "labels"
    width = d * levels if one_hot else d
    coupling = 0.5 * Rng(7).at(kind).normal((width, width))
    tilt = 0.5 * Rng(8).at(kind).normal((width,))

    def log_density(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return ((flat @ coupling) * flat).sum(1) * (0.4 if kind == "ordinal" else 1.0) + flat @ tilt

    return Discrete(log_density, d, levels=levels, one_hot=one_hot)
