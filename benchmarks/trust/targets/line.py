"""The line of the tests (`tests/density/known.py`) with known noise: evidence and slopes in closed form."""

from __future__ import annotations

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from tests.density.known import NOISE, WIDE, X, Y, evidence, slopes
from torch.distributions import Normal

import motes
from motes.density import DataAnnealing


def truth() -> Truth:
    a, b = slopes().tolist()
    return Truth(evidence(), {"intercept": a, "slope": b})


def prior() -> Normal:
    return Normal(torch.zeros(2, dtype=torch.float64), WIDE)


def density() -> motes.Density:
    return motes.Density(lambda b: Normal(b @ X.T, NOISE).log_prob(Y).sum(1), prior(), vectorised=True)


def one_by_one() -> DataAnnealing:
    return DataAnnealing(
        lambda b, rows: Normal(b @ rows["x"].T, NOISE).log_prob(rows["y"]), prior(), {"x": X, "y": Y}, vectorised=True
    )


TARGETS = [
    Target(
        "line",
        "A line through 12 points, known noise",
        truth,
        {"intercept": "x[0]", "slope": "x[1]"},
        on(density, data=one_by_one),
        easy=True,
    )
]
