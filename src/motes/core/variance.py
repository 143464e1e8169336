"""Standard errors from one run, by the spread of families."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.genealogy import Genealogy, family_spread
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.weights import normalise


@dataclass(frozen=True)
class StandardError:
    """A standard error; NaN with a reason in words where the run cannot give one."""

    value: float
    method: str
    reason: str = ""

    def __float__(self) -> float:
        return self.value


def log_evidence_se(particles: Particles, genealogy: Genealogy, scheme: Scheme) -> StandardError:
    """The standard error of the log evidence, nats."""
    n, k = particles.n, genealogy.generation
    if n < 2 or particles.log_weight.max() == -math.inf:
        return StandardError(math.nan, "", "one particle tells nothing about its spread")
    spread = family_spread(particles.log_weight, particles.root, n)
    v = 1 - (n / (n - 1)) ** (k + 1) * (1 - spread) if scheme.variance == "lee_whiteley" else spread - 1 / n
    return StandardError(math.sqrt(max(v, 0.0)), scheme.variance or "")


def mean_se(value: Tensor, particles: Particles, genealogy: Genealogy, scheme: Scheme) -> tuple[Tensor, str]:
    """The standard error of the weighted mean of `value` (N, ...)."""
    w = normalise(particles.log_weight)
    flat = value.reshape(particles.n, -1).to(torch.float64)
    centred = w[:, None] * (flat - w @ flat)
    family = torch.zeros_like(flat).index_add_(0, particles.root, centred)
    return family.square().sum(0).sqrt().reshape(value.shape[1:]), ""
