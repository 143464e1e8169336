"""Linear recursions of order one for a batch, in as many operations as the logarithm of their length."""

from __future__ import annotations

import torch
from torch import Tensor


def recurse(first: Tensor, rate: Tensor) -> Tensor:
    """s (N, T) with s_t = first_t + rate s_{t-1}, rate (N,), s_{-1} = 0; by doubling the reach of each sum."""
    s, power, reach = first, rate[:, None], 1
    while reach < s.shape[1]:
        s = torch.cat([s[:, :reach], torch.addcmul(s[:, reach:], power, s[:, :-reach])], 1)
        power, reach = power.square(), 2 * reach
    return s
