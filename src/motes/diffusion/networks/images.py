"""A denoiser and a classifier of images with even sides (28 x 28, say) that take minutes to train on one core.

Pixels are gathered in patches of 2 x 2 first, so that no convolution runs at full resolution, and channels are the last
axis in memory, which on a CPU makes a convolution two to three times as fast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motes.diffusion.networks.digits import ResidualBlock
from motes.learn.embedding import EMBEDDING, embed

PATCH = 2


class Attention(nn.Module):
    """One head of self-attention between the places of a feature map, added to it."""

    ask: nn.Conv2d
    conv2: nn.Conv2d

    def __init__(self, channels: int):
        super().__init__()
        self.norm: nn.GroupNorm = nn.GroupNorm(4, channels)
        self.ask, self.conv2 = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        query, key, value = self.ask(self.norm(x)).reshape(n, 3, c, h * w).unbind(1)
        weight = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(c), dim=-1)
        return x + self.conv2((value @ weight.transpose(1, 2)).reshape(n, c, h, w))


class ImageUNet(nn.Module):
    """Images (N, 1, H, W), H and W multiples of 4, and times (N,) to velocities of the same shape.

    Args:
        channels: at half the resolution; twice as many at a quarter.
        classes: how many labels there are; 0 for none.
        inputs: channels of the input: 1, or 2 with an estimate or a mask beside the image.
    """

    classes: int
    inputs: int
    label: nn.Embedding | None
    fine1: ResidualBlock
    fine2: ResidualBlock
    coarse1: ResidualBlock
    look: Attention
    coarse2: ResidualBlock
    merge1: ResidualBlock
    merge2: ResidualBlock
    norm: nn.GroupNorm
    last: nn.Conv2d

    def __init__(self, channels: int, *, classes: int = 0, inputs: int = 1):
        super().__init__()
        c, self.classes, self.inputs = channels, classes, inputs
        first, second = nn.Linear(EMBEDDING, EMBEDDING), nn.Linear(EMBEDDING, EMBEDDING)
        self.time: nn.Sequential = nn.Sequential(first, nn.SiLU(), second)
        self.label = nn.Embedding(classes + 1, EMBEDDING) if classes else None
        self.enter: nn.Conv2d = nn.Conv2d(inputs * PATCH**2, c, 3, padding=1)
        self.fine1, self.fine2 = ResidualBlock(c, c), ResidualBlock(c, c)
        self.down: nn.Conv2d = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.coarse1, self.look, self.coarse2 = (
            ResidualBlock(2 * c, 2 * c),
            Attention(2 * c),
            ResidualBlock(2 * c, 2 * c),
        )
        self.up: nn.Conv2d = nn.Conv2d(2 * c, c, 1)
        self.merge1, self.merge2 = ResidualBlock(2 * c, c), ResidualBlock(2 * c, c)
        self.norm, self.last = nn.GroupNorm(4, c), nn.Conv2d(c, PATCH**2, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        estimate: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Velocities; `label` (N,) int64 with -1 where it is unknown, `estimate` and `mask` like x."""
        time = self.time(embed(t))
        if self.label is not None:
            label = t.new_full(t.shape, -1, dtype=torch.long) if label is None else label
            time = time + math.sqrt(EMBEDDING) * self.label(torch.where(label < 0, self.classes, label))
        time = F.silu(time)
        if self.inputs > 1:
            beside = estimate if mask is None else mask
            x = torch.cat([x, torch.zeros_like(x) if beside is None else beside], dim=1)
        h = F.pixel_unshuffle(x, PATCH).contiguous(memory_format=torch.channels_last)
        enter = self.enter(h)
        fine1 = self.fine1(enter, time)
        fine2 = self.fine2(fine1, time)
        coarse = self.coarse2(self.look(self.coarse1(self.down(fine2), time)), time)
        h = self.merge1(torch.cat([F.interpolate(self.up(coarse), scale_factor=2), fine2], dim=1), time)
        h = self.merge2(torch.cat([h, fine1], dim=1), time)
        return F.pixel_shuffle(self.last(F.silu(self.norm(h))), PATCH).contiguous()


class ImageClassifier(nn.Module):
    """Images (N, 1, 28, 28) to log-probabilities (N, classes)."""

    enter: nn.Conv2d
    fine: nn.Conv2d
    down: nn.Conv2d
    coarse: nn.Conv2d

    def __init__(self, channels: int, *, classes: int = 10):
        super().__init__()
        c = channels
        self.enter, self.fine = nn.Conv2d(PATCH**2, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.down, self.coarse = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), nn.Conv2d(2 * c, 2 * c, 3, padding=1)
        self.inner: nn.Conv2d = nn.Conv2d(2 * c, 2 * c, 3, stride=2, padding=1)
        self.leave: nn.Linear = nn.Linear(2 * c * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = F.pixel_unshuffle(x, PATCH).contiguous(memory_format=torch.channels_last)
        h = F.silu(self.enter(h))
        h = F.silu(h + self.fine(h))
        h = F.silu(self.down(h))
        h = F.silu(self.inner(F.silu(h + self.coarse(h))))
        return F.log_softmax(self.leave(h.flatten(1)), dim=1)
