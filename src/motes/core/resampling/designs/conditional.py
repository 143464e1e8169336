"""Conditional resampling: one particle survives whatever the others do, as particle Gibbs needs."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling._scheme import Scheme
from motes.rng import Rng

CONDITIONAL = cited("andrieu2010", "conditional resampling and particle Gibbs")


def _conditional(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(n,) parents: that of particle 0 is itself, the others are independent."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), rng.categorical(log_weight, n - 1)])


conditional_multinomial = Scheme(
    "conditional multinomial", _conditional, variance=None, same_n=True, references=(CONDITIONAL,)
)
"""Particle 0 is its own parent; the parents of the others are independent, in proportion to the weights, its own
included: multinomial resampling, given that particle 0 survives in its place (Andrieu et al., section 4.3)."""
