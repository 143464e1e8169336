"""The networks of 8 x 8 images, and the parts that larger ones share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motes.learn.embedding import EMBEDDING, embed


class ResidualBlock(nn.Module):
    """A residual block of two convolutions; the time scales and shifts the channels in between."""

    norm1: nn.GroupNorm
    conv1: nn.Conv2d
    norm2: nn.GroupNorm
    conv2: nn.Conv2d

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, inside), nn.Conv2d(inside, outside, 3, padding=1)
        self.time: nn.Linear = nn.Linear(EMBEDDING, 2 * outside)
        self.norm2, self.conv2 = nn.GroupNorm(4, outside), nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class UNet(nn.Module):
    """Images (N, 1, 8, 8) and times (N,) to velocities (N, 1, 8, 8), at two resolutions."""

    enter: nn.Conv2d
    fine: ResidualBlock
    coarse1: ResidualBlock
    coarse2: ResidualBlock
    norm: nn.GroupNorm
    leave: nn.Conv2d

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        first, second = nn.Linear(EMBEDDING, EMBEDDING), nn.Linear(EMBEDDING, EMBEDDING)
        self.time: nn.Sequential = nn.Sequential(first, nn.SiLU(), second, nn.SiLU())
        self.enter, self.fine = nn.Conv2d(1, c, 3, padding=1), ResidualBlock(c, c)
        self.down: nn.Conv2d = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.coarse1, self.coarse2 = ResidualBlock(2 * c, 2 * c), ResidualBlock(2 * c, 2 * c)
        self.up: nn.Conv2d = nn.Conv2d(2 * c, c, 3, padding=1)
        self.merge: ResidualBlock = ResidualBlock(2 * c, c)
        self.norm, self.leave = nn.GroupNorm(4, c), nn.Conv2d(c, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(embed(t))
        fine = self.fine(self.enter(x), time)
        coarse = self.coarse2(self.coarse1(self.down(fine), time), time)
        merged = self.merge(torch.cat([self.up(F.interpolate(coarse, scale_factor=2)), fine], dim=1), time)
        return self.leave(F.silu(self.norm(merged)))


class Classifier(nn.Module):
    """Images (N, 1, 8, 8) to log-probabilities (N, 10) of the digits."""

    enter: nn.Conv2d
    fine: nn.Conv2d
    down: nn.Conv2d
    coarse: nn.Conv2d

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        self.enter, self.fine = nn.Conv2d(1, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.down, self.coarse = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), nn.Conv2d(2 * c, 2 * c, 3, padding=1)
        self.leave: nn.Linear = nn.Linear(2 * c * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.fine(F.silu(self.enter(x))))
        h = F.silu(self.coarse(F.silu(self.down(h))))
        return F.log_softmax(self.leave(h.flatten(1)), dim=1)
