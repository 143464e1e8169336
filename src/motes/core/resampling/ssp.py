"""Srinivasan's sampling process: children rounded up or down two particles at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling import _fast
from motes.core.resampling._grid import bits_for, ends, expand, split, uniforms
from motes.core.resampling._scheme import scheme
from motes.rng import Rng

GERBER = cited("gerber2019", "SSP resampling")


@scheme("ssp", variance="chan_lai", bounded=True, references=(GERBER,))
def ssp(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(n,) parents in ascending order; numbers of children are negatively associated and within 1 of n W_i."""
    bits = bits_for(n)
    whole, rest, _ = split(ends(log_weight, n), bits)
    u = uniforms(rng, len(rest))
    count = _fast.pivot(whole, rest, u, bits) if _fast.suits(rest) else pivot(whole, rest, u, bits)
    return expand(count, n)


def pivot(whole: Tensor, rest: Tensor, u: Tensor, bits: int) -> Tensor:
    """(N,) numbers of children: `whole` (N,), with the parts left over rounded so that sum and means are kept.

    The particle that holds a part meets the next one. Together below one unit, one of them takes both parts; above,
    one is rounded up and the other holds what is left over. Either way a particle wins in proportion to what it
    brought, or in the second case to what it lacked.

    Args:
        rest: (N,) the sums of the parts, in cells of 2^-bits.
        u: (N,) uniform.
    """
    unit, holder, held, before = 1 << bits, 0, 0, 0
    count = whole.tolist()
    for i, (s, v) in enumerate(zip(rest.tolist(), u.tolist(), strict=True)):
        b, before = s - before, s
        both = held + b
        if both < unit:
            if int(v * both) < b:
                holder = i
            held = both
        else:
            lack = 2 * unit - both
            if int(v * lack) < unit - b:
                count[holder] += 1
                holder = i
            else:
                count[i] += 1
            held = both - unit
    return torch.tensor(count, device=whole.device)
