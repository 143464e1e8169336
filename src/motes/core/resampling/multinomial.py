"""Multinomial resampling: independent children."""

from __future__ import annotations

from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling._grid import bits_for, ends, expand, tally, uniforms
from motes.core.resampling._scheme import scheme
from motes.rng import Rng


@scheme("multinomial", variance="lee_whiteley", references=(cited("gordon1993", "multinomial resampling"),))
def multinomial(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(n,) parents in ascending order: every child stands anywhere on the line, whatever the others do."""
    bits = bits_for(n)
    return expand(tally(ends(log_weight, n), uniforms(rng, n), n, bits), n)
