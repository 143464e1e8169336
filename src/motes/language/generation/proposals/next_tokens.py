"""Next tokens from the law that rules and constraint leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.generation.prefix import NextTokens, PrefixState
from motes.language.generation.proposals import rejection
from motes.rng import Rng

Propose = Callable[[Rng, PrefixState, Tensor], NextTokens]
"""How the next tokens of the texts `drawn` (N,) bool of a population come about."""


@dataclass(frozen=True)
class FromLaw:
    """Draws from the next-token laws; where the constraint only tests tokens, by rejection.

    Attributes:
        max_refused: rejection gives up after this many different tokens of a text; None: never.
    """

    max_refused: int | None = None

    def __call__(self, rng: Rng, state: PrefixState, drawn: Tensor) -> NextTokens:
        token = torch.full((len(drawn),), -1, dtype=torch.int64)
        gained = torch.zeros(len(drawn), dtype=torch.float64)
        law, recogniser = state.reader.law.log_prob, state.reader.recogniser
        for ids in torch.nonzero(drawn)[:, 0].split(max(1, 2**24 // law.shape[1])):
            row = state.place[ids]
            if recogniser is None or recogniser.full:
                token[ids] = rng.shard(ids).categorical(law, row=row)
                continue

            def test(place: Tensor, what: Tensor, row: Tensor = row) -> Tensor:
                return recogniser.test(row[place], what)

            token[ids], gained[ids], _ = rejection.draw(rng, law[row], test, max_refused=self.max_refused, ids=ids)
        return NextTokens(token, gained, gained)
