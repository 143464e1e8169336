"""A posterior that cannot be normalised: likelihood exp(x^2) under N(0, 1), so exp(x^2 / 2).

The evidence is infinite. Whatever a sampler finds is an artefact, and a run must say "improper".
"""

from __future__ import annotations

import math

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from torch.distributions import Normal

import motes


def density() -> motes.Density:
    return motes.Density(lambda x: x.square().sum(1), Normal(torch.zeros(1, dtype=torch.float64), 1.0), vectorised=True)


TARGETS = [
    Target("improper", "An improper posterior, exp(x^2 / 2)", lambda: Truth(math.inf), {}, on(density), word="improper")
]
