"""Texts that are partly given: their first tokens are written anew as they were, the rest is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.generation.prefix import NextTokens, PrefixState
from motes.language.generation.proposals.next_tokens import Propose
from motes.rng import Rng


@dataclass(frozen=True)
class ConditionalDraw:
    """Gives each particle the next of its given tokens as long as it has some.

    Attributes:
        otherwise: draws the others.
        tokens: (N, T) int64.
        kept: (N, T) float64, what a generation's x holds as `kept` of the given tokens: with it the random weight of a
            token that was found by rejection stays what it was.
        count: (N,) int64, how many tokens are given.
    """

    otherwise: Propose
    tokens: Tensor
    kept: Tensor
    count: Tensor

    def __call__(self, rng: Rng, state: PrefixState, drawn: Tensor) -> NextTokens:
        at = state.length
        given = drawn & (at < self.count)
        free = drawn & ~given
        if free.any():
            others = self.otherwise(rng, state, free)
            token, gained = others.token, others.gained
        else:
            token, gained = torch.full_like(self.count, -1), torch.zeros(len(self.count), dtype=torch.float64)
        ids = torch.nonzero(given)[:, 0]
        token[ids] = self.tokens[ids, at[ids]]
        gained[ids] = self.kept[ids, at[ids]] - state.reader.law.log_mass[state.place[ids]]
        return NextTokens(token, gained, gained)
