"""Resampling in many populations at once, a row each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.rng import Rng


def systematic_rows(rng: Rng, log_weight: Tensor) -> Tensor:
    """(N, M) parents within each row of `log_weight` (N, M), by systematic resampling with one number a row.

    A state of weight zero has no children, unless all of its row have: then each is its own parent.
    """
    n, m = log_weight.shape
    top = log_weight.amax(1, keepdim=True)
    dead = top == -math.inf
    end = torch.where(dead, 1.0, (log_weight - torch.where(dead, 0.0, top)).exp()).cumsum(1)
    end = end / end[:, -1:]
    place = (torch.arange(m) + rng.uniform((n, 1), dtype=torch.float64)) / m
    return torch.searchsorted(end, place)
