"""Crosswise fits: what moves and weighs one half of the particles is fitted to the other half.

A map that is fitted to the very particles that it then moves and weighs knows their noise, and their weights come out
too high: by nats in 16 dimensions with 50 particles. Siblings sit side by side after resampling, so halves that are cut
in the middle share at most one family.
"""

from __future__ import annotations

import torch
from torch import Tensor

from motes.kernels.adaptation.scale import by_half

LEAST = 4.0
"""The effective number of particles of a half below which it tells nothing of the other."""


def other_half(weight: Tensor) -> Tensor:
    """(2, N) the weights to fit with, for the first and for the second half of the particles: those of the other half.

    Each row sums to 1. Where a half weighs less than `LEAST` particles both rows are those of all particles: then there
    are too few families for an error bar in any case.

    Args:
        weight: (N,) normalised.
    """
    n = len(weight)
    half = (n + 1) // 2
    rows = torch.stack([weight, weight])
    rows[0, :half] = 0.0
    rows[1, half:] = 0.0
    total, square = rows.sum(1), rows.square().sum(1)
    if not bool((total.square() >= LEAST * square).all()) or not bool((total > 0).all()):
        return torch.stack([weight, weight])
    return rows / total[:, None]


def is_split(halves: Tensor) -> bool:
    """Whether what `other_half` returned are the weights of halves, and not those of all particles twice."""
    return not torch.equal(halves[0], halves[1])


def rows(values: Tensor, x: Tensor) -> Tensor:
    """Numbers (N,) of the particles as a factor of states x (N, ...), in their type and on their device."""
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1))


__all__ = ["by_half", "is_split", "other_half", "rows"]
