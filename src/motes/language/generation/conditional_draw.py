"""Texts that are partly given: their first tokens are written anew as they were, the rest is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.generation.frontier import Frontier
from motes.language.generation.generation import Generation
from motes.rng import Rng


@dataclass(frozen=True)
class Forced:
    """How tokens come about where each particle has some given ones; for the `draw` of a `Generation`.

    Attributes:
        generation: draws the others.
        tokens: (N, T) int64.
        kept: (N, T) float64, what a generation's x holds as `kept` of the given tokens: with it the random weight of a
            token that was found by rejection stays what it was.
        count: (N,) int64, how many tokens are given.
    """

    generation: Generation
    tokens: Tensor
    kept: Tensor
    count: Tensor

    def __call__(self, rng: Rng, frontier: Frontier, drawn: Tensor) -> tuple[Tensor, Tensor]:
        front = frontier.front
        at = front.prefixes.length[frontier.row.clamp(min=0)]
        given = drawn & (at < self.count)
        free = drawn & ~given
        if free.any():
            token, gained = self.generation._draw(rng, frontier, free)
        else:
            token, gained = torch.full_like(self.count, -1), torch.zeros(len(self.count), dtype=torch.float64)
        ids = torch.nonzero(given)[:, 0]
        token[ids] = self.tokens[ids, at[ids]]
        gained[ids] = self.kept[ids, at[ids]] - self.generation._weight(front)[frontier.row[ids]]
        return token, gained
