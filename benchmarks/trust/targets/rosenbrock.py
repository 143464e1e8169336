"""Rosenbrock's banana in 10 dimensions: five pairs x ~ N(1, 1 / sqrt 2), y ~ N(x^2, .0707), from a N(0, 3) start.

That is exp(-(1 - x)^2 - 100 (y - x^2)^2), normalised: log Z = 0, E x = 1, E y = E x^2 = 1.5.
"""

from __future__ import annotations

import math

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal

import motes

PAIRS = 5


def truth() -> Truth:
    return Truth(0.0, {"x": 1.0, "y": 1.5, "x < 0": float(norm.cdf(-math.sqrt(2)))})


def density() -> motes.Density:
    start = Normal(torch.zeros(2 * PAIRS, dtype=torch.float64), 3.0)

    def log_likelihood(z: Tensor) -> Tensor:
        x, y = z[:, :PAIRS], z[:, PAIRS:]
        banana = Normal(torch.ones_like(x), math.sqrt(0.5)).log_prob(x) + Normal(x.square(), math.sqrt(0.005)).log_prob(
            y
        )
        return banana.sum(1) - start.log_prob(z).sum(1)

    return motes.Density(log_likelihood, start, vectorised=True)


TARGETS = [
    Target(
        "rosenbrock-10",
        "Rosenbrock's banana, d = 10",
        truth,
        {"x": "x[0]", "y": f"x[{PAIRS}]", "x < 0": lambda z: (z[:, 0] < 0).double()},
        on(density),
    )
]
