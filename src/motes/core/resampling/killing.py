"""Killing: a particle lives on with probability W_i / max W; who dies is replaced by a child of anyone."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.core.resampling._grid import bits_for, ends, owners, places, spared, uniforms
from motes.core.resampling._scheme import scheme
from motes.rng import Rng

DEL_MORAL = Reference(
    "delmoral2004killing",
    "Del Moral",
    2004,
    "Feynman-Kac Formulae: Genealogical and Interacting Particle Systems with Applications, section 2.5.2",
    "Springer",
    "killing resampling",
)


@scheme("killing", variance=None, same_n=True, references=(DEL_MORAL,))
def killing(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(N,) parents, not in order: who lives keeps its slot, so that few particles move where weights are even."""
    bits = bits_for(n)
    parent = torch.arange(n, device=log_weight.device)
    dead = (~spared(log_weight, uniforms(rng, n))).nonzero().flatten()
    if len(dead):
        parent[dead] = owners(ends(log_weight, n), places(rng.at("replace"), n, bits)[dead], bits)
    return parent
