"""Stratified resampling: one child in each unit of the line, at a place of its own."""

from __future__ import annotations

from torch import Tensor

from motes.core.resampling._grid import bits_for, cells, ends, lattice, uniforms
from motes.core.resampling._scheme import scheme
from motes.core.resampling.systematic import KITAGAWA
from motes.rng import Rng


@scheme("stratified", variance="chan_lai", references=(KITAGAWA,))
def stratified(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(n,) parents in ascending order: child j stands at j + U_j on the line; counts are within 2 of n W_i."""
    bits = bits_for(n)
    return lattice(ends(log_weight, n), cells(uniforms(rng, n), bits), n, bits)
