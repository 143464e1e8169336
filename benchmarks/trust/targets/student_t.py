"""A multivariate Student t with 3 degrees of freedom in 10 dimensions, from a N(0, 1) start.

Normalised, so log Z = 0; |x|^2 / d is F-distributed with (d, 3) degrees of freedom and each coordinate is a Student t,
which gives the probabilities of tails. The weights of draws from the start have no variance.
"""

from __future__ import annotations

import math

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.stats import f, t
from torch import Tensor
from torch.distributions import Normal

import motes

D, FREEDOM, FAR = 10, 3.0, 5.0


def truth() -> Truth:
    return Truth(0.0, {"x0 > 2": float(t.sf(2, FREEDOM)), "r^2/d > 5": float(f.sf(FAR, D, FREEDOM))})


def density() -> motes.Density:
    start = Normal(torch.zeros(D, dtype=torch.float64), 1.0)
    constant = math.lgamma((FREEDOM + D) / 2) - math.lgamma(FREEDOM / 2) - 0.5 * D * math.log(FREEDOM * math.pi)

    def log_likelihood(z: Tensor) -> Tensor:
        student = constant - 0.5 * (FREEDOM + D) * torch.log1p(z.square().sum(1) / FREEDOM)
        return student - start.log_prob(z).sum(1)

    return motes.Density(log_likelihood, start, vectorised=True)


TARGETS = [
    Target(
        "student-t",
        "Student t with 3 degrees of freedom, d = 10, from a Gaussian start",
        truth,
        {"x0 > 2": lambda z: (z[:, 0] > 2).double(), "r^2/d > 5": lambda z: (z.square().mean(1) > FAR).double()},
        on(density),
    )
]
