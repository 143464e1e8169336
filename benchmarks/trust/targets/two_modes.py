"""Two modes in 8 dimensions, the heavier one much narrower: at -3 and +3 in every coordinate, sd .3 and .15.

A mixture of two normal laws with shares .2 and .8, from the start N(0, 3): log Z = 0. The heavy mode takes up 1/256 of
the volume of the light one; who loses it finds log Z = log .2 = -1.61.
"""

from __future__ import annotations

import math

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from torch import Tensor
from torch.distributions import Normal

import motes

D = 8


def truth() -> Truth:
    return Truth(0.0, {"right": 0.8, "x0": 0.8 * 3 - 0.2 * 3})


def density() -> motes.Density:
    one = torch.ones(D, dtype=torch.float64)
    start = Normal(0 * one, 3.0)

    def log_likelihood(z: Tensor) -> Tensor:
        left = math.log(0.2) + Normal(-3 * one, 0.3).log_prob(z).sum(1)
        right = math.log(0.8) + Normal(3 * one, 0.15).log_prob(z).sum(1)
        return torch.logaddexp(left, right) - start.log_prob(z).sum(1)

    return motes.Density(log_likelihood, start, vectorised=True)


def right(z: Tensor) -> Tensor:
    return (z[:, 0] > 0).double()


TARGETS = [
    Target(
        "two-modes",
        "Two modes in 8 dimensions, sd .3 and .15",
        truth,
        {"right": right, "x0": "x[0]"},
        on(density),
        modes={"left": lambda z: 1 - right(z), "right": right},
    )
]
