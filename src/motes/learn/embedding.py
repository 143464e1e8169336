"""Times as cosines and sines, for networks that are told a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EMBEDDING = 64


def embed(t: Tensor) -> Tensor:
    """Times (N,) in [0, 1] as (N, EMBEDDING) cosines and sines."""
    angle = t[:, None] * math.pi * torch.arange(1, EMBEDDING // 2 + 1, dtype=t.dtype, device=t.device)
    return torch.cat([angle.cos(), angle.sin()], dim=1)
