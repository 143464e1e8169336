"""The texts of a population under way: what is written of each, what that cost, and one more token behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from motes.language.generation.frontier import Closed, Frontier, TextReader
from motes.language.models.model import LanguageModel


@dataclass(frozen=True)
class TokenSequences:
    """N texts as tokens (N, max_tokens) int64, of which the first `length` (N,) int64 count."""

    tokens: Tensor
    length: Tensor

    @classmethod
    def of(cls, x: dict[str, Any]) -> TokenSequences:
        """From the `x` of particles."""
        return cls(x["tokens"], x["length"])

    def take(self, index: Tensor) -> TokenSequences:
        """The texts `index` (M,), in that order."""
        return TokenSequences(self.tokens[index], self.length[index])

    def own(self, i: int, end: Iterable[int]) -> Tensor:
        """The tokens of text i without its end token."""
        tokens = self.tokens[i, : int(self.length[i])]
        return tokens[:-1] if len(tokens) and int(tokens[-1]) in end else tokens

    def strings(self, model: LanguageModel, index: Iterable[int] | None = None) -> list[str]:
        """The texts `index`, or all, without their end tokens."""
        index = range(len(self.length)) if index is None else index
        return [model.decode(self.own(i, model.end).tolist()) for i in index]


@dataclass(frozen=True)
class NextTokens:
    """The next tokens of N texts.

    Attributes:
        token: (N,) int64, -1 where none was drawn or found.
        gained: (N,) float64, nats, what the weights gain by how it was drawn; -inf where none was found.
        kept: (N,) float64, the part of that which belongs to the token however it comes about.
        evaluated: how many texts were evaluated to choose it.
    """

    token: Tensor
    gained: Tensor
    kept: Tensor
    evaluated: int = 0


@dataclass(frozen=True)
class PrefixState:
    """The texts of N particles, as a generation's `Particles.x` holds them.

    Attributes:
        tokens: (N, max_tokens) int64.
        length: (N,) int64.
        finished: (N,) bool: ended, cut at `max_tokens`, or of weight zero.
        provisional: (N,) float64, nats, what the weights contain of guesses about unfinished texts, or of the reward.
        row: (N, max_tokens) int32, the row of the frontier behind each token, -1 where the text did not go on.
        log_prob: (N, max_tokens) float64, the model's log-probability of each token.
        kept: (N, max_tokens) float64, the log of the mass that rules and constraint keep at each token, as it counts.
        began: (N,) int64, the length at the beginning of the step.
        frontier: where the unfinished texts stand.
    """

    tokens: Tensor
    length: Tensor
    finished: Tensor
    provisional: Tensor
    row: Tensor
    log_prob: Tensor
    kept: Tensor
    began: Tensor
    frontier: Frontier | Closed

    @classmethod
    def start(cls, reader: TextReader, n: int, max_tokens: int) -> PrefixState:
        """N empty texts."""
        zero, wide = torch.zeros(n, dtype=torch.int64), torch.zeros(n, max_tokens, dtype=torch.float64)
        return cls(
            tokens=wide.long(),
            length=zero.clone(),
            finished=zero.bool(),
            provisional=zero.double(),
            row=torch.full((n, max_tokens), -1, dtype=torch.int32),
            log_prob=wide.clone(),
            kept=wide.clone(),
            began=zero.clone(),
            frontier=Frontier(zero, reader, reader.version),
        )

    @classmethod
    def of(cls, x: dict[str, Any]) -> PrefixState:
        """From the `x` of particles."""
        return cls(**{f.name: x[f.name] for f in fields(cls)})

    def leaves(self) -> dict[str, Any]:
        """As the `x` of particles."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def sequences(self) -> TokenSequences:
        """The texts alone."""
        return TokenSequences(self.tokens, self.length)

    @property
    def reader(self) -> TextReader:
        """The rows where the unfinished texts stand."""
        assert isinstance(self.frontier, Frontier), "all texts are finished"
        return self.frontier.reader

    @property
    def place(self) -> Tensor:
        """(N,) the row where each text stands, 0 for finished ones."""
        assert isinstance(self.frontier, Frontier), "all texts are finished"
        return self.frontier.row.clamp(min=0)

    def extended(self, drawn: Tensor, new: NextTokens) -> tuple[PrefixState, Tensor, int]:
        """One more token behind the texts `drawn` (N,) bool.

        Returns:
            The state; what the weights gain (N,) float64, nats: by the draw, by the mass that the law behind the token
            keeps, and -inf for a text cut at `max_tokens` that the constraint does not accept; the texts evaluated.
        """
        reader, frontier = self.reader, self.frontier
        assert isinstance(frontier, Frontier)
        ids = torch.nonzero(drawn)[:, 0]
        at, row, token = self.length[ids], frontier.row[ids], new.token[ids].clamp(min=0)
        tokens, log_prob, kept, cell = self.tokens.clone(), self.log_prob.clone(), self.kept.clone(), self.row.clone()
        tokens[ids, at], log_prob[ids, at] = token, reader.rules.raw[row, token]
        kept[ids, at] = reader.law.log_mass[row] + new.kept[ids]
        length, dead = self.length + drawn, torch.isneginf(new.gained)
        ended = drawn & torch.isin(new.token, torch.tensor(reader.model.end))
        cut = drawn & ~ended & ~dead & (length == tokens.shape[1])
        gained = new.gained + reader.cut_potential(frontier.row, new.token, cut)
        going, stays = drawn & ~ended & ~cut & ~dead, ~drawn & ~self.finished
        after, evaluated = Closed(len(going)), new.evaluated
        if (going | stays).any():
            after, count = frontier.extend(new.token, going, int(length.max()), stays)
            evaluated += count
            gained[going] += reader.law.log_mass[after.row[going]]
            cell[going, length[going] - 1] = after.row[going].to(torch.int32)
        state = replace(
            self,
            tokens=tokens,
            length=length,
            finished=~going & ~stays,
            row=cell,
            log_prob=log_prob,
            kept=kept,
            frontier=after,
        )
        return state, gained, evaluated
