"""A denoiser of sequences of tokens: convolutions whose reach doubles from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motes.learn.embedding import EMBEDDING, embed

REACH = (1, 2, 4, 8, 16, 32)


class Dilated(nn.Module):
    """A residual block over places: a wide convolution with gaps, then one of width one; the time shifts channels."""

    norm1: nn.GroupNorm
    norm2: nn.GroupNorm
    conv2: nn.Conv1d
    time: nn.Linear

    def __init__(self, channels: int, reach: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.conv1: nn.Conv1d = nn.Conv1d(channels, channels, width, padding=reach * (width // 2), dilation=reach)
        self.conv2, self.time = nn.Conv1d(channels, channels, 1), nn.Linear(EMBEDDING, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x) + self.time(time)[:, :, None]))
        return x + self.conv2(F.silu(self.norm2(h)))


class SequenceNetwork(nn.Module):
    """Tokens (N, L) int64, -1 where masked, and times (N,) to log-probabilities (N, L, V) of the clean tokens.

    Args:
        vocabulary: V.
        channels: of every layer.
        classes: how many labels there are; 0 for none.
        rounds: how often the six reaches 1, 2, ..., 32 are gone through.
        width: places that each convolution looks at.
    """

    vocabulary: int
    classes: int
    label: nn.Embedding | None
    norm: nn.GroupNorm
    last: nn.Conv1d

    def __init__(self, vocabulary: int, *, channels: int = 64, classes: int = 0, rounds: int = 1, width: int = 5):
        super().__init__()
        self.vocabulary, self.classes = vocabulary, classes
        self.enter: nn.Conv1d = nn.Conv1d(vocabulary + 1, channels, 9, padding=4)
        self.time: nn.Sequential = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING)
        )
        self.label = nn.Embedding(classes + 1, EMBEDDING) if classes else None
        self.layers: nn.ModuleList = nn.ModuleList(
            Dilated(channels, reach, width) for _ in range(rounds) for reach in REACH
        )
        self.norm, self.last = nn.GroupNorm(1, channels), nn.Conv1d(channels, vocabulary, 1)

    def forward(self, tokens: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Log-probabilities in nats; `label` (N,) int64 with -1 where it is unknown."""
        one_hot = F.one_hot(torch.where(tokens < 0, self.vocabulary, tokens), self.vocabulary + 1)
        weight = self.enter.weight
        time = self.time(embed(t.to(weight)))
        if self.label is not None:
            label = tokens.new_full(t.shape, -1) if label is None else label
            time = time + math.sqrt(EMBEDDING) * self.label(torch.where(label < 0, self.classes, label))
        time, h = F.silu(time), self.enter(one_hot.to(weight).transpose(1, 2))
        for layer in self.layers:
            h = layer(h, time)
        return F.log_softmax(self.last(F.silu(self.norm(h))).transpose(1, 2), dim=-1)
