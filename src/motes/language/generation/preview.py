"""Next tokens where a constraint binds, chosen by what it leaves behind each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.language.constraint import distinct
from motes.language.generation.frontier import BadLogits, Frontier
from motes.language.generation.lookahead import draw
from motes.rng import Rng


def previewed(rng: Rng, k: int, frontier: Frontier, bound: Tensor, globalise: bool) -> tuple[Tensor, Tensor, int]:
    """The next tokens of the particles `bound` (N,) bool, -1 for others and in a dead end; the weights gained (N,).

    Of each particle's law a random set of k tokens is evaluated, the heavy ones for sure, and a token is drawn from it
    in proportion to its probability times the mass that the next law keeps, see
    `motes.language.generation.lookahead.draw`. The gain leaves that mass out, which is paid for when the token is
    written: together they have the mean of the sum over all tokens. The model is asked about each distinct text once.

    Returns:
        token (N,) int64, gain (N,) float64 nats, and how many texts were evaluated.
    """
    front, count = frontier.front, 0
    end = torch.tensor(front.model.end)
    token = torch.full((len(bound),), -1, dtype=torch.int64)
    gained = torch.zeros(len(bound), dtype=torch.float64)
    for ids in torch.nonzero(bound)[:, 0].split(max(1, 2**24 // front.law.log_prob.shape[1])):
        row = frontier.row[ids]

        def left(place: Tensor, what: Tensor, row: Tensor = row, ids: Tensor = ids) -> Tensor:
            nonlocal count
            pairs, which = distinct(row[place], what)
            parent, tokens = torch.tensor(pairs).T
            going = torch.nonzero(~torch.isin(tokens, end))[:, 0]
            mass = torch.zeros(len(pairs), dtype=torch.float64)
            if len(going):
                count += len(going)
                try:
                    law = front.preview(parent[going], tokens[going])
                except BadLogits as error:
                    raise error.about(front.model.name, ids.tolist(), int(front.prefixes.length.max()) + 1) from error
                mass[going] = law.kept_by_constraint + (law.kept_by_rules if globalise else 0.0)
            return mass[which]

        token[ids], weight, mass = draw(rng, front.law.log_prob[row], k, left, ids=ids)
        gained[ids] = torch.where(token[ids] < 0, -torch.inf, weight - mass)
    return token, gained, count
