"""A rate from 8 counts, Gamma(3, 1) before: conjugate."""

from __future__ import annotations

import math

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.special import digamma, gammaln
from torch.distributions import Gamma, Poisson

import motes
from motes.density import DataAnnealing

A, B, COUNTS = 3.0, 1.0, (2, 4, 1, 3, 7, 2, 3, 5)


def truth() -> Truth:
    a, b = A + sum(COUNTS), B + len(COUNTS)
    log_z = A * math.log(B) - gammaln(A) + gammaln(a) - a * math.log(b) - sum(math.lgamma(c + 1) for c in COUNTS)
    return Truth(float(log_z), {"rate": a / b, "log rate": float(digamma(a)) - math.log(b)})


def prior() -> dict[str, Gamma]:
    one = torch.ones((), dtype=torch.float64)
    return {"rate": Gamma(A * one, B * one)}


def counts() -> torch.Tensor:
    return torch.tensor(COUNTS, dtype=torch.float64)


def density() -> motes.Density:
    y = counts()
    return motes.Density(lambda v: Poisson(v["rate"][:, None]).log_prob(y).sum(1), prior(), vectorised=True)


def one_by_one() -> DataAnnealing:
    return DataAnnealing(lambda v, y: Poisson(v["rate"][:, None]).log_prob(y), prior(), counts(), vectorised=True)


TARGETS = [
    Target(
        "counts",
        "A rate from 8 counts",
        truth,
        {"rate": "rate", "log rate": lambda v: v["rate"].log()},
        on(density, data=one_by_one),
        easy=True,
    )
]
