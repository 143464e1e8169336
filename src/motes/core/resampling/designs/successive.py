"""Successive sampling: one by one without replacement, in proportion to the weights that are left."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng import Rng


def without_replacement(rng: Rng, weight: Tensor, k: int) -> Tensor:
    """At most `k` of the places (n,), one by one, each with the chance that its weight has among those left."""
    if k >= len(weight):
        return torch.arange(len(weight))
    left, out = weight.log(), []
    for j in range(k):
        out.append(int(rng.at("pick", inner=j).categorical(left)))
        left = left.clone()
        left[out[-1]] = -torch.inf
    return torch.tensor(out)
