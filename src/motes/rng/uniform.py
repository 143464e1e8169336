"""Uniform numbers in the open interval (0, 1), from two words each.

Both precisions take the middle of a cell, so neither 0 nor 1 can come out, 1 - u has the same law bit for bit, and
the float32 number is the float64 number on a coarser grid.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uniform64(high: Tensor, low: Tensor) -> Tensor:
    """The middle of one of 2^52 cells: every value is exact, from 2^-53 to 1 - 2^-53."""
    return (((high << 20) | (low >> 12)).to(torch.float64) + 0.5) * 2.0**-52


def uniform32(high: Tensor) -> Tensor:
    """The middle of one of 2^23 cells, from 2^-24 to 1 - 2^-24."""
    return ((high >> 9).to(torch.float32) + 0.5) * 2.0**-23
