"""Residual resampling: floor(n W_i) children for certain, the rest by another scheme."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling._grid import bits_for, cells, ends, expand, lattice, split, tally, uniforms
from motes.core.resampling._scheme import scheme
from motes.rng import Rng

LIU = cited("liu1998", "residual resampling")
DOUC = cited("douc2005", "residual resampling with stratified and systematic remainders")


def residual(
    rng: Rng, log_weight: Tensor, n: int, remainder: Literal["multinomial", "stratified", "systematic"] = "multinomial"
) -> Tensor:
    """(n,) parents in ascending order; `remainder` says how the children that are left over choose theirs."""
    bits = bits_for(n)
    whole, end, left = split(ends(log_weight, n), bits)
    if left == 0:
        more = 0
    elif remainder == "multinomial":
        more = tally(end, uniforms(rng, left), left, bits)
    else:
        u = rng.uniform(()) if remainder == "systematic" else uniforms(rng, left)
        more = torch.bincount(lattice(end, cells(u, bits), left, bits), minlength=len(whole))
    return expand(whole + more, n)


scheme("residual", variance="lee_whiteley", references=(LIU,))(residual)
scheme("residual_stratified", variance="chan_lai", references=(LIU, DOUC))(partial(residual, remainder="stratified"))
scheme("residual_systematic", variance="chan_lai", bounded=True, references=(LIU, DOUC))(
    partial(residual, remainder="systematic")
)
