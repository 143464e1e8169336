"""A set of texts under way, finished and not, that methods of search grow by one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.constraint import Constraint
from motes.language.generation.frontier import BadLogits, NextTokenLaw, TextReader, open_reader
from motes.language.models.model import LanguageModel, in_place
from motes.language.rule import Rule, renormalised
from motes.rng import Rng

MOST_TESTS = 4096
"""The most tokens that a search tests behind one text, where the constraint has no mask that says it all."""


@dataclass(frozen=True)
class Beam:
    """M entries: texts so far, each with its probability and the row of the reader that its next token comes from.

    The reader is mutable and belongs to the youngest beam; an older one cannot be grown again.

    Attributes:
        reader: the evaluated rows.
        tokens: (M, max_tokens) int64, zero behind `length`.
        length: (M,) int64.
        row: (M,) int64, -1 for entries that are finished (ended, cut or in a dead end).
        log_prob: (M,) float64, nats, under the law of next tokens that rules and constraint leave.
        log_mass: (M,) float64, nats, the masses that count on the way; -inf for what the constraint does not accept.
    """

    reader: TextReader
    tokens: Tensor
    length: Tensor
    row: Tensor
    log_prob: Tensor
    log_mass: Tensor

    def __len__(self) -> int:
        return len(self.length)

    @property
    def going(self) -> Tensor:
        """(M,) bool: the entries that are not finished."""
        return self.row >= 0

    def next_log_prob(self) -> Tensor:
        """(G, V) the law of the next token of each unfinished entry, in order."""
        return self.reader.law.log_prob[self.row[self.going]]

    def candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every finished entry as it is and every child of the others: entry, token (-1: as it is), log-probability."""
        going = torch.nonzero(self.going)[:, 0]
        stay = torch.nonzero(~self.going)[:, 0]
        law = self.next_log_prob()
        log_prob = (self.log_prob[going][:, None] + law).flatten()
        entry = going.repeat_interleave(law.shape[1])
        token = torch.arange(law.shape[1]).repeat(len(going))
        possible = torch.nonzero(~torch.isneginf(log_prob))[:, 0]
        return (
            torch.cat([stay, entry[possible]]),
            torch.cat([torch.full_like(stay, -1), token[possible]]),
            torch.cat([self.log_prob[stay], log_prob[possible]]),
        )

    def keep(self, entry: Tensor) -> Beam:
        """The entries (M',) int64 or bool, in that order, none of them grown."""
        fields = (self.tokens, self.length, self.row, self.log_prob, self.log_mass)
        return Beam(self.reader, *(x[entry] for x in fields))

    def grow(self, entry: Tensor, token: Tensor) -> Beam:
        """Entry i of the new beam is `entry[i]` with `token[i]` behind it, or as it is where the token is -1.

        An unfinished entry that stays as it is waits: its row is carried along and not evaluated again.
        """
        old, reader, end = self.keep(entry), self.reader, torch.tensor(self.reader.model.end)
        drawn = token >= 0
        tokens, length = old.tokens.clone(), old.length + drawn
        tokens[drawn, old.length[drawn]] = token[drawn]
        log_prob, log_mass, row = old.log_prob.clone(), old.log_mass.clone(), torch.where(drawn, -1, old.row)
        log_prob[drawn] += reader.law.log_prob[old.row[drawn], token[drawn]]
        ended = drawn & torch.isin(token, end)
        cut = drawn & ~ended & (length == tokens.shape[1])
        if reader.recogniser is not None and cut.any():
            accepted = reader.recogniser.accepts(old.row[cut], token[cut])
            log_mass[cut] = torch.where(accepted, log_mass[cut], -torch.inf)
        going = drawn & ~ended & ~cut
        if going.any():
            on = going | (row >= 0)
            parent, added, row[on] = in_place(old.row[on], token[on], reader.model.vocabulary)
            reader.extend(parent, added)
            _find_law(reader, row, int(length.max()))
            log_mass[going] += reader.law.log_mass[row[going]]
            row[torch.isneginf(log_mass)] = -1
        return Beam(reader, tokens, length, row, log_prob, log_mass)

    def text(self, i: int) -> str:
        """Entry i without its end token."""
        return self.written(i, 0)

    def written(self, i: int, begun: int) -> str:
        """What entry i has behind its first `begun` tokens, without its end token."""
        tokens, model = self.tokens[i, begun : int(self.length[i])].tolist(), self.reader.model
        return model.decode(tokens[:-1] if tokens and tokens[-1] in model.end else tokens)


def open_beam(
    model: LanguageModel,
    prompt: Tensor,
    max_tokens: int,
    rules: Sequence[Rule] = (),
    constraint: Constraint | None = None,
    globalise: bool = True,
    copies: int = 1,
) -> Beam:
    """The empty text, `copies` times."""
    reader = open_reader(model, prompt, max_tokens, rules, constraint, globalise)
    reader.law = tested(reader, reader.law)
    mass = reader.law.log_mass.expand(copies).clone()
    start = torch.zeros(copies, dtype=torch.int64)
    row = torch.where(torch.isneginf(mass), -1, start)
    tokens = torch.zeros(copies, max_tokens, dtype=torch.int64)
    return Beam(reader, tokens, start, row, torch.zeros_like(mass), mass)


def follow(beam: Beam, tokens: Tensor, length: Tensor) -> Beam:
    """The beam of the given texts (M, max_tokens), (M,) int64, from a beam that holds the empty text alone."""
    beam = beam.keep(torch.zeros(len(length), dtype=torch.int64))
    every = torch.arange(len(length))
    for t in range(int(length.max())):
        beam = beam.grow(every, torch.where((t < length) & beam.going, tokens[:, t], -1))
    return beam


def _find_law(reader: TextReader, row: Tensor, t: int) -> None:
    try:
        reader.law = tested(reader, reader.find_law())
    except BadLogits as error:
        raise error.about(reader.model.name, torch.nonzero(torch.isin(row, error.rows))[:, 0].tolist(), t) from error


def tested(reader: TextReader, law: NextTokenLaw) -> NextTokenLaw:
    """The law without the tokens that a constraint refuses which can only be asked about single tokens.

    Raises:
        MotesError: too many tokens are left to ask about for a search.
    """
    recogniser = reader.recogniser
    if recogniser is None or recogniser.full:
        return law
    left = ~torch.isneginf(law.log_prob)
    if len(left) and (most := int(left.sum(1).max())) > MOST_TESTS:
        raise MotesError(
            f"the constraint can only be asked about one token at a time, and a search asks about all {most} that are "
            f"left behind a text (at most {MOST_TESTS}): put top_k(50) or another truncation among the rules, or draw "
            "texts with motes.Generation, which asks about the tokens that it draws and no others"
        )
    row, token = torch.nonzero(left, as_tuple=True)
    refused = ~recogniser.test(row, token)
    log_prob = law.log_prob.clone()
    log_prob[row[refused], token[refused]] = -torch.inf
    log_prob, kept = renormalised(log_prob)
    return replace(law, log_prob=log_prob, kept_by_constraint=law.kept_by_constraint + kept)


def drawn_on(
    beam: Beam, rng: Rng, moving: Tensor, most: int, *, temperature: float = 1.0, stop: str | None = None
) -> Beam:
    """The unfinished entries among `moving` (M,) bool with tokens drawn behind them; all others stay as they are.

    Args:
        rng: an address of the entries.
        most: the most tokens.
        temperature: the tokens come from the law to the power of one over it; log-probabilities remain the law's.
        stop: an entry comes to rest once this occurs in what was drawn here.
    """
    begun, moving = beam.length, moving & beam.going
    for t in range(most):
        at = torch.nonzero(moving)[:, 0]
        if not len(at):
            break
        token = torch.full((len(beam),), -1)
        law = beam.reader.law.log_prob[beam.row[at]]
        token[at] = rng.at("token", inner=t).shard(at).categorical(law / temperature)
        beam = beam.grow(torch.arange(len(beam)), token)
        moving = moving & beam.going
        if stop is not None:
            for i in torch.nonzero(moving)[:, 0].tolist():
                moving[i] = stop not in beam.written(i, int(begun[i]))
    return beam
