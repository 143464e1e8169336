"""Srinivasan's sampling process: children rounded up or down two particles at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.core.resampling import _fast
from motes.core.resampling._grid import bits_for, ends, expand, split, uniforms
from motes.core.resampling._scheme import scheme
from motes.rng import Rng

GERBER = Reference(
    "gerber2019",
    "Gerber, Chopin, Whiteley",
    2019,
    "Negative association, ordering and convergence of resampling methods",
    "Annals of Statistics 47",
    "SSP resampling",
)


@scheme("ssp", variance="chan_lai", bounded=True, references=(GERBER,))
def ssp(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(n,) parents in ascending order; numbers of children are negatively associated and within 1 of n W_i."""
    bits = bits_for(n)
    whole, part, _ = split(ends(log_weight, n), bits)
    u = uniforms(rng, len(part))
    up = _fast.pivot(part, u, bits) if _fast.suits(part) else pivot(part, u, bits)
    return expand(whole + up)


def pivot(part: Tensor, u: Tensor, bits: int) -> Tensor:
    """(N,) 0 or 1: round the parts (N,), given in cells of 2^-bits, to whole units with their sum and means kept.

    The particle that holds a part meets the next one. Together below one unit, one of them takes both parts; above,
    one is rounded up and the other holds what is left over. Either way a particle wins in proportion to what it
    brought, or in the second case to what it lacked.
    """
    unit, holder, held = 1 << bits, 0, 0
    up = [0] * len(part)
    for i, (b, v) in enumerate(zip(part.tolist(), u.tolist(), strict=True)):
        both = held + b
        if both < unit:
            if int(v * both) < b:
                holder = i
            held = both
        else:
            lack = 2 * unit - both
            if int(v * lack) < unit - b:
                up[holder], holder = 1, i
            else:
                up[i] = 1
            held = both - unit
    return torch.tensor(up, device=part.device)
