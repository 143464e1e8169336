"""Systematic resampling: one uniform number, children at equal distances."""

from __future__ import annotations

from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling._grid import bits_for, cells, ends, lattice
from motes.core.resampling._scheme import scheme
from motes.rng import Rng

KITAGAWA = cited("kitagawa1996", "systematic and stratified resampling")


@scheme("systematic", variance="chan_lai", bounded=True, references=(KITAGAWA,))
def systematic(rng: Rng, log_weight: Tensor, n: int) -> Tensor:
    """(n,) parents in ascending order: child j stands at j + U on the line, one U for all."""
    bits = bits_for(n)
    return lattice(ends(log_weight, n), cells(rng.uniform(()), bits), n, bits)
