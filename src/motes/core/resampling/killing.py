"""Killing: a particle lives on with probability W_i / max W; who dies is replaced by a child of anyone."""

from __future__ import annotations

from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling._grid import bits_for, ends, expand, replace, spared, tally, uniforms
from motes.core.resampling._scheme import scheme
from motes.rng import Rng


@scheme("killing", variance=None, same_n=True, references=(cited("delmoral2004", "killing resampling: section 2.5.2"),))
def killing(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(N,) parents, not in order: who lives keeps its slot, so that few particles move where weights are even.

    One uniform number a slot decides both, life and replacement: what is left of it after the first is uniform again.
    """
    bits, end = bits_for(n), ends(log_weight, n)
    again, dead = spared(end, uniforms(rng, n))
    return replace(again, expand(tally(end, again, n, bits), dead))
