"""The next tokens of a population, from the laws of the rows that its particles point to."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.language.generation import rejection
from motes.language.generation.frontier import Frontier
from motes.rng import Rng


def next_tokens(rng: Rng, frontier: Frontier, drawn: Tensor, max_refused: int | None) -> tuple[Tensor, Tensor]:
    """(N,) the next token of the particles `drawn` (N,), -1 for others and in a dead end; the weights gained (N,).

    Where the constraint only tests tokens, they are drawn by rejection, which gives up after `max_refused` tokens.
    """
    token = torch.full((len(drawn),), -1, dtype=torch.int64)
    gained = torch.zeros(len(drawn), dtype=torch.float64)
    law, recogniser = frontier.front.law.log_prob, frontier.front.recogniser
    for ids in torch.nonzero(drawn)[:, 0].split(max(1, 2**24 // law.shape[1])):
        row = frontier.row[ids]
        if recogniser is None or recogniser.full:
            token[ids] = rng.shard(ids).categorical(law, row=row)
            continue

        def test(place: Tensor, what: Tensor, row: Tensor = row) -> Tensor:
            return recogniser.test(row[place], what)

        token[ids], gained[ids], _ = rejection.draw(rng, law[row], test, max_refused=max_refused, ids=ids)
    return token, gained
