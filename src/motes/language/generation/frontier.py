"""Where the unfinished texts of a population stand: each distinct text is evaluated once, and particles point to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.tree import Leaf
from motes.errors import MotesError, NanLogPotential, name_particles
from motes.language.constraint import Constraint, Recogniser
from motes.language.models.model import LanguageModel, Prefixes, in_place
from motes.language.rule import Chain, Rule, renormalised


@dataclass(frozen=True)
class NextTokenLaw:
    """The next-token law of every row that is drawn from, and what it leaves out.

    Attributes:
        log_prob: (A, V) float64, normalised, after the rules and within the constraint; -inf throughout in a dead end.
        kept_by_rules: (A,) float64, log of the mass that the rules divided by, nats.
        kept_by_constraint: (A,) float64, log of the mass that the constraint leaves of the rules' law; -inf: dead end.
        globalise: whether the mass of the rules counts in the weights.
    """

    log_prob: Tensor
    kept_by_rules: Tensor
    kept_by_constraint: Tensor
    globalise: bool = True

    @property
    def log_mass(self) -> Tensor:
        """(A,) the log of the mass that each row's law keeps, as far as it counts in the weights, nats."""
        return self.kept_by_constraint + self.kept_by_rules if self.globalise else self.kept_by_constraint

    def behind(self, first: int) -> NextTokenLaw:
        """The laws from row `first` on."""
        kept = (self.kept_by_rules[first:], self.kept_by_constraint[first:])
        return NextTokenLaw(self.log_prob[first:], *kept, self.globalise)


class TextReader:
    """What reads the texts, a row each: prefixes of the model, parser states, next-token laws. Mutable, as a cache."""

    version: int

    def __init__(
        self,
        model: LanguageModel,
        prompt: Tensor,
        max_tokens: int,
        rules: Sequence[Rule],
        constraint: Constraint | None,
        globalise: bool = True,
    ):
        self.model, self.globalise = model, globalise
        self.rules: Chain = Chain(rules, model, prompt, max_tokens)
        self.prefixes: Prefixes = model.prefixes(prompt, max_tokens)
        self.recogniser: Recogniser | None = None if constraint is None else constraint.open(model)
        if self.recogniser is not None:
            self.recogniser.within(max_tokens)
        self.version = 0
        self.law = self.find_law()

    def extend(self, parent: Tensor, token: Tensor) -> None:
        """Make the rows `parent` with `token` behind them the new rows, and find their laws."""
        self.prefixes.extend(parent, token)
        self.rules.extend(parent, token)
        if self.recogniser is not None:
            self.recogniser.extend(parent, token)
        self.version += 1

    def replay(self, parent: Tensor, token: Tensor) -> None:
        """`extend` for what is evaluated again: laws are found only if a rule's memory needs them."""
        if any(self.rules.remembers):
            self.rules(self.log_prob())
        self.prefixes.extend(parent, token)
        self.rules.extend(parent, token)

    def preview(self, parent: Tensor, token: Tensor) -> NextTokenLaw:
        """The laws behind the rows `parent` (C,) with `token` (C,) behind them, which are evaluated for that alone.

        The rows and their laws stay what they are.
        """
        law, memory = self.law, self.rules.memory()
        rows = torch.arange(len(law.log_prob))
        stay = torch.full_like(rows, -1)
        self.extend(torch.cat([rows, parent]), torch.cat([stay, token]))
        found = self.find_law()
        self.extend(rows, stay)
        self.rules.recall(memory)
        self.law = law
        return found.behind(len(rows))

    def reopen(self, texts: dict[int, list[int]]) -> None:
        """After the prefixes were evaluated anew: the parser states of the rows with these tokens, and all laws."""
        if self.recogniser is not None:
            self.recogniser.reopen(texts, len(self.prefixes.logits))
        self.law: NextTokenLaw = self.find_law()

    def log_prob(self, first: int | None = None) -> Tensor:
        """The model's own law of each row (A, V) float64, or of the `first` rows."""
        logits = self.prefixes.logits[:first].detach().cpu()
        most = logits.amax(1)  # NaN if any is, +inf if any is, -inf if all are
        bad = torch.nonzero(~torch.isfinite(most))[:, 0]
        if len(bad):
            raise BadLogits(bad)
        return torch.log_softmax(logits.to(torch.float64), -1)

    def find_law(self, first: int | None = None) -> NextTokenLaw:
        """The law of each row, or of the `first` rows: log-softmax, the rules in order, then the constraint.

        Until it is found for them too, only those rows can be parents of a row with a new token.
        """
        log_prob, by_rules = self.rules(self.log_prob(first))
        by_constraint = torch.zeros_like(by_rules)
        if self.recogniser is not None:
            log_prob, by_constraint = renormalised(log_prob.masked_fill(~self.recogniser.allowed()[:first], -torch.inf))
        return NextTokenLaw(log_prob, by_rules, by_constraint, self.globalise)

    def cut_potential(self, row: Tensor, token: Tensor, cut: Tensor) -> Tensor:
        """(N,) zero, and -inf where the constraint does not accept a text that is `cut` (N,) bool behind its token."""
        potential = torch.zeros(len(token), dtype=torch.float64)
        if self.recogniser is not None and cut.any():
            potential[cut] = torch.where(self.recogniser.accepts(row[cut], token[cut]), 0.0, -torch.inf).double()
        return potential


def open_reader(
    model: LanguageModel,
    prompt: Tensor,
    max_tokens: int,
    rules: Sequence[Rule],
    constraint: Constraint | None,
    globalise: bool = True,
    n: int = 1,
) -> TextReader:
    """The reader of N empty texts: the prompt is its one row.

    Raises:
        NanLogPotential: the model's logits are NaN or infinite.
    """
    try:
        return TextReader(model, prompt, max_tokens, rules, constraint, globalise)
    except BadLogits as error:
        raise error.about(model.name, range(n), 0) from error


class BadLogits(MotesError):
    """The model returned NaN or +inf in these rows, or nothing but -inf."""

    def __init__(self, rows: Tensor):
        super().__init__(f"NaN or infinite logits in rows {rows.tolist()[:8]}")
        self.rows = rows

    def about(self, model: str, particles: Sequence[int], t: int) -> NanLogPotential:
        """The same, with the particles and the step."""
        return NanLogPotential(
            f"{model} returned NaN or infinite logits for {name_particles(particles)} at t={t}: look at its weights "
            "and its number type (float16 overflows; bfloat16 or float32 do not)"
        )


@dataclass(frozen=True)
class Frontier(Leaf):
    """Which row each particle points to, (N,) int64; -1 for finished ones. Taking particles copies nothing else.

    The rows behind it are mutable and belong to the latest step: `stale` says that they have moved on.
    """

    row: Tensor
    reader: TextReader
    version: int

    def take(self, index: Tensor) -> Frontier:
        return Frontier(self.row[index], self.reader, self.version)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def stale(self) -> bool:
        return self.version != self.reader.version

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.reader.law.log_prob)

    def extend(self, token: Tensor, going: Tensor, t: int, stays: Tensor | None = None) -> tuple[Frontier, int]:
        """The frontier one token on, and how many distinct texts were evaluated.

        Args:
            token: (N,) int64, the new tokens.
            going: (N,) bool, the particles that go on.
            t: the step, for messages.
            stays: (N,) bool, the particles whose texts are kept as they are.
        """
        row = torch.full_like(self.row, -1)
        vocabulary = self.reader.model.vocabulary
        kept = going if stays is None else going | stays
        new = token if stays is None else torch.where(stays, vocabulary, token)
        parent, added, row[kept] = in_place(self.row[kept], new[kept], vocabulary + 1)
        added = torch.where(added == vocabulary, -1, added)
        self.reader.extend(parent, added)
        try:
            self.reader.law = self.reader.find_law()
        except BadLogits as error:
            hit = torch.nonzero(torch.isin(row, error.rows))[:, 0].tolist()
            raise error.about(self.reader.model.name, hit, t) from error
        return Frontier(row, self.reader, self.reader.version), int((added >= 0).sum())


@dataclass(frozen=True)
class Closed(Leaf):
    """The frontier of a population whose texts are all finished."""

    n: int

    def take(self, index: Tensor) -> Closed:
        return Closed(len(index))

    def __len__(self) -> int:
        return self.n

    @property
    def rows(self) -> int:
        return 0
