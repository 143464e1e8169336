"""Next tokens where a constraint binds, chosen by what it leaves behind each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.constraint import distinct
from motes.language.generation.frontier import BadLogits
from motes.language.generation.prefix import NextTokens, PrefixState
from motes.language.generation.proposals.lookahead import draw, found
from motes.language.generation.proposals.next_tokens import Propose
from motes.rng import Rng

BINDS = math.log(0.5)
"""Where a constraint leaves less of the mass than this, nats, its next tokens are looked at."""


@dataclass(frozen=True)
class Preview:
    """Draws next tokens with what the constraint leaves behind each, where it leaves less than half of the mass.

    Of such a particle's law a random set of k tokens is evaluated, the heavy ones for sure, and a token is drawn from
    it in proportion to its probability times the mass that the next law keeps, see `lookahead.draw`. The gain leaves
    that mass out, which is paid for when the token is written: together they have the mean of the sum over all tokens.
    The model is asked about each distinct text once.

    Attributes:
        k: the size of the set.
        otherwise: draws where the constraint does not bind.
    """

    k: int
    otherwise: Propose

    def __call__(self, rng: Rng, state: PrefixState, drawn: Tensor) -> NextTokens:
        bound = binds(state, drawn)
        if not bound.any():
            return self.otherwise(rng, state, drawn)
        token, gained, evaluated = previewed(rng, self.k, state, bound)
        free = drawn & ~bound
        if free.any():
            others = self.otherwise(rng, state, free)
            token, gained = torch.where(free, others.token, token), torch.where(free, others.gained, gained)
        return NextTokens(token, gained, found(token) if evaluated else gained, evaluated)


def binds(state: PrefixState, drawn: Tensor) -> Tensor:
    """(N,) the texts among `drawn` whose next token is chosen by what stands behind it."""
    reader = state.reader
    if reader.recogniser is None or not reader.recogniser.full:
        return torch.zeros_like(drawn)
    kept = reader.law.kept_by_constraint[state.place]
    return drawn & (kept < BINDS) & ~torch.isneginf(kept) & (state.length + 1 < state.tokens.shape[1])


def previewed(rng: Rng, k: int, state: PrefixState, bound: Tensor) -> tuple[Tensor, Tensor, int]:
    """The next tokens of the texts `bound` (N,) bool, -1 for others and in a dead end; the weights gained (N,).

    Returns:
        token (N,) int64, gain (N,) float64 nats, and how many texts were evaluated.
    """
    reader, count = state.reader, 0
    end = torch.tensor(reader.model.end)
    token = torch.full((len(bound),), -1, dtype=torch.int64)
    gained = torch.zeros(len(bound), dtype=torch.float64)
    for ids in torch.nonzero(bound)[:, 0].split(max(1, 2**24 // reader.law.log_prob.shape[1])):
        row = state.place[ids]

        def left(place: Tensor, what: Tensor, row: Tensor = row, ids: Tensor = ids) -> Tensor:
            nonlocal count
            pairs, which = distinct(row[place], what)
            parent, tokens = torch.tensor(pairs).T
            going = torch.nonzero(~torch.isin(tokens, end))[:, 0]
            mass = torch.zeros(len(pairs), dtype=torch.float64)
            if len(going):
                count += len(going)
                try:
                    mass[going] = reader.preview(parent[going], tokens[going]).log_mass
                except BadLogits as error:
                    raise error.about(reader.model.name, ids.tolist(), int(reader.prefixes.length.max()) + 1) from error
            return mass[which]

        token[ids], weight, mass = draw(rng, reader.law.log_prob[row], k, left, ids=ids)
        gained[ids] = torch.where(token[ids] < 0, -torch.inf, weight - mass)
    return token, gained, count
