"""Systematic resampling of particles in order, so that each part of the state space keeps its share of children."""

from __future__ import annotations

from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling._scheme import scheme
from motes.core.resampling.ssp import GERBER
from motes.core.resampling.systematic import KITAGAWA, systematic
from motes.rng import Rng

LECUYER = cited("lecuyer2009", "resampling particles in order")


@scheme("systematic_sorted", variance=None, bounded=True, needs_order=True, references=(KITAGAWA, LECUYER, GERBER))
def systematic_sorted(rng: Rng, log_weight: Tensor, n: int, order: Tensor) -> Tensor:
    """(n,) parents, ascending in `order` (N,); ties in `order` keep their slots' order."""
    by_order = order.argsort(stable=True)
    return by_order[systematic(rng, log_weight[by_order], n)]
