"""Networks for points of few dimensions: a denoiser, and a generator that makes points of noise in one step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motes.learn.embedding import EMBEDDING, embed


class PointNetwork(nn.Module):
    """Points (N, d) and times (N,) to a tensor like the points, through residual layers.

    Args:
        dimension: d.
        width: of the layers.
        depth: how many residual layers.
        inputs: 1, or 2 with an estimate or a mask beside the point.
    """

    enter: nn.Linear
    time: nn.Linear

    def __init__(self, dimension: int, *, width: int = 64, depth: int = 3, inputs: int = 1):
        super().__init__()
        self.inputs = inputs
        self.enter, self.time = nn.Linear(inputs * dimension, width), nn.Linear(EMBEDDING, width)
        self.layers: nn.ModuleList = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last: nn.Linear = nn.Linear(width, dimension)

    def forward(self, x: Tensor, t: Tensor, estimate: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """A tensor like x (N, d); `estimate` and `mask` like x, zero where they are not given."""
        if self.inputs > 1:
            beside = estimate if mask is None else mask
            x = torch.cat([x, torch.zeros_like(x) if beside is None else beside], dim=1)
        h = self.enter(x) + self.time(embed(t))
        for layer in self.layers:
            h = h + layer(F.silu(h))
        return self.last(F.silu(h))


class PointGenerator(nn.Module):
    """Noise (N, d) to points (N, d), through residual layers."""

    enter: nn.Linear
    leave: nn.Linear

    def __init__(self, dimension: int, *, width: int = 64, depth: int = 3):
        super().__init__()
        self.enter, self.leave = nn.Linear(dimension, width), nn.Linear(width, dimension)
        self.layers: nn.ModuleList = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, noise: Tensor) -> Tensor:
        """Points (N, d) of noise (N, d)."""
        h = self.enter(noise)
        for layer in self.layers:
            h = h + layer(F.silu(h))
        return self.leave(F.silu(h))
