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
    """

    log_prob: Tensor
    kept_by_rules: Tensor
    kept_by_constraint: Tensor


class Front:
    """The rows themselves: prefixes evaluated by the model, parser states, next-token laws. Mutable, as a cache is."""

    version: int

    def __init__(
        self,
        model: LanguageModel,
        prompt: Tensor,
        max_tokens: int,
        rules: Sequence[Rule],
        constraint: Constraint | None,
    ):
        self.model = model
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
        more = len(rows)
        return NextTokenLaw(found.log_prob[more:], found.kept_by_rules[more:], found.kept_by_constraint[more:])

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
        return NextTokenLaw(log_prob, by_rules, by_constraint)


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
    front: Front
    version: int

    def take(self, index: Tensor) -> Frontier:
        return Frontier(self.row[index], self.front, self.version)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def stale(self) -> bool:
        return self.version != self.front.version

    def extend(self, token: Tensor, going: Tensor, t: int, stays: Tensor | None = None) -> tuple[Frontier, int]:
        """The frontier one token on, and how many distinct texts were evaluated.

        Args:
            token: (N,) int64, the new tokens.
            going: (N,) bool, the particles that go on.
            t: the step, for messages.
            stays: (N,) bool, the particles whose texts are kept as they are.
        """
        row = torch.full_like(self.row, -1)
        vocabulary = self.front.model.vocabulary
        kept = going if stays is None else going | stays
        new = token if stays is None else torch.where(stays, vocabulary, token)
        parent, added, row[kept] = in_place(self.row[kept], new[kept], vocabulary + 1)
        added = torch.where(added == vocabulary, -1, added)
        self.front.extend(parent, added)
        try:
            self.front.law = self.front.find_law()
        except BadLogits as error:
            hit = torch.nonzero(torch.isin(row, error.rows))[:, 0].tolist()
            raise error.about(self.front.model.name, hit, t) from error
        return Frontier(row, self.front, self.front.version), int((added >= 0).sum())


@dataclass(frozen=True)
class Closed(Leaf):
    """The frontier of a population whose texts are all finished."""

    n: int

    def take(self, index: Tensor) -> Closed:
        return Closed(len(index))

    def __len__(self) -> int:
        return self.n
