"""A precision with the prior Gamma(.001, .001), from 10 numbers: conjugate, so all is known.

Almost all draws from the prior underflow or are tiny; the posterior is an ordinary Gamma(5.001, .001 + S / 2).
"""

from __future__ import annotations

import math

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.special import digamma, gammaln
from torch.distributions import Gamma, Normal

import motes
from motes.density import DataAnnealing

VAGUE = 0.001
Y = (1.2, -3.1, 0.4, 2.2, -0.7, 1.9, -2.4, 0.1, 3.3, -1.6)


def truth() -> Truth:
    a, b = VAGUE + len(Y) / 2, VAGUE + sum(v * v for v in Y) / 2
    log_z = VAGUE * math.log(VAGUE) - gammaln(VAGUE) + gammaln(a) - a * math.log(b) - len(Y) / 2 * math.log(2 * math.pi)
    return Truth(float(log_z), {"precision": a / b, "log precision": float(digamma(a)) - math.log(b)})


def prior() -> dict[str, Gamma]:
    vague = torch.tensor(VAGUE, dtype=torch.float64)
    return {"precision": Gamma(vague, vague)}


def density() -> motes.Density:
    y = torch.tensor(Y, dtype=torch.float64)
    return motes.Density(
        lambda v: Normal(0.0, v["precision"][:, None] ** -0.5).log_prob(y).sum(1), prior(), vectorised=True
    )


def one_by_one() -> DataAnnealing:
    y = torch.tensor(Y, dtype=torch.float64)
    return DataAnnealing(
        lambda v, y: Normal(0.0, v["precision"][:, None] ** -0.5).log_prob(y), prior(), y, vectorised=True
    )


TARGETS = [
    Target(
        "precision",
        "A precision with prior Gamma(.001, .001)",
        truth,
        {"precision": "precision", "log precision": lambda v: v["precision"].log()},
        on(density, data=one_by_one),
    )
]
