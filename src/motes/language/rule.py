"""Rules change the next-token law and say how much mass they kept, so that a run can correct for it.

A rule maps log-probabilities (A, V) float64 to the changed, normalised ones and the log of the mass kept (A,), nats:
what the changed law was divided by to sum to one. Summed over a text, the kept mass is the ratio between the locally
normalised law that is drawn from and the globally normalised one. What a rule remembers of a text (its *state*) is a
function of the text, so it belongs to a row and not to a particle.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.files.settings import knobs
from motes.core.registry import Registry
from motes.core.tree import take
from motes.errors import MotesError, ShapeError
from motes.language.models.model import LanguageModel, Prefixes

SUM = 1e-5
"""How far the probabilities of a rule's law may be from adding to one."""
SPELT, ALIKE = 128, 0.75
"""Tokens that are compared to tell vocabularies apart, and the share of them that must be the same."""

State = Any
"""A pytree of tensors whose first axis is the rows, or None."""


@dataclass(frozen=True)
class SeenTokens:
    """What is known of the A rows whose next-token law a rule changes.

    Attributes:
        model: the language model.
        prompt: (P,) int64, the prompt's tokens.
        tokens: (A, T) int64, each row's text so far; -1 behind its end.
        length: (A,) int64, how many tokens each row has.
        raw: (A, V) float64, the model's own log-probabilities, before any rule.
        state: the rule's state of each row, see `Rule.start`.
        others: the log-probabilities (A, V) of the rule's companions for the same texts, see `Rule.companions`.
    """

    model: LanguageModel
    prompt: Tensor
    tokens: Tensor
    length: Tensor
    raw: Tensor
    state: State = None
    others: tuple[Tensor, ...] = ()


class Rule(ABC):
    """One change to the next-token law."""

    example: ClassVar[Mapping[str, Any]] = {}
    """Knobs that the tests of its law try, where one has no default."""

    @abstractmethod
    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        """Log-probabilities (A, V) float64 to changed ones (A, V) and the log of the mass kept (A,), nats.

        A rule that looks at nothing but the probabilities can be called without `seen`.
        """

    def start(self, model: LanguageModel, prompt: Tensor) -> State:
        """The state before the first token, one row; None for a rule that remembers nothing."""
        return None

    def advance(self, seen: SeenTokens, log_prob: Tensor, token: Tensor) -> State:
        """The state of each row once `token` (A,) int64 stands behind it.

        Args:
            seen: the rows before the token; state, tokens and the rest have been taken to the rows that go on.
            log_prob: (A, V), what the rule was given to change there.
        """
        return seen.state

    def companions(self, model: LanguageModel, prompt: Tensor) -> Sequence[tuple[LanguageModel, Tensor]]:
        """Other models or prompts (P',) whose laws after the same text the rule wants to see, in `Seen.others`."""
        return ()

    def settings(self) -> dict[str, Any]:
        """The rule and its knobs, as JSON."""
        return {"rule": type(self).__name__, **knobs(self)}


rules: Registry[type[Rule]] = Registry("rule", "motes.language.rules")
"""Every rule by its name."""


def check_vocabulary(rule: Rule, model: LanguageModel, other: LanguageModel) -> None:
    """A companion has the model's tokens, since both read the same ones.

    Raises:
        MotesError: it has another number of tokens, or most of them are spelt differently.
    """
    kind = type(rule).__name__
    if other.vocabulary != model.vocabulary:
        raise MotesError(
            f"{other.name} has {other.vocabulary} tokens and {model.name} has {model.vocabulary}: the two laws that "
            f"{kind} compares need one vocabulary"
        )
    if other is model:
        return
    some = range(0, model.vocabulary, max(1, model.vocabulary // SPELT))
    differ = [v for v in some if model.decode([v]) != other.decode([v])]
    if len(differ) > (1 - ALIKE) * len(some):
        v = differ[0]
        raise MotesError(
            f"{other.name} and {model.name} have as many tokens but spell them differently (token {v} is "
            f"{other.decode([v])!r} and {model.decode([v])!r}): the two laws that {kind} compares need one vocabulary"
        )


def scattered(old: State, new: State, rows: Tensor) -> State:
    """The state `old` with `rows` (M,) replaced by those of `new`."""
    if isinstance(old, dict):
        return {key: scattered(old[key], new[key], rows) for key in old}
    if isinstance(old, (tuple, list)):
        return type(old)(scattered(a, b, rows) for a, b in zip(old, new, strict=True))
    return old.index_copy(0, rows, new)


def renormalised(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (A, V) divided by their mass, and the log of that mass (A,); a row without mass stays -inf."""
    most = log_prob.amax(-1)
    law = torch.log_softmax(log_prob, -1)  # much faster than logsumexp, which its largest entry tells as well
    dead = torch.isneginf(most)
    if not dead.any():
        return law, most - law.amax(-1)
    return torch.where(dead[:, None], log_prob, law), torch.where(dead, most, most - law.amax(-1))


class Chain:
    """Rules in their order with what they remember of each row: states, companions' laws, tokens. Mutable, as a cache.

    Args:
        rules: applied first to last.
        model: the language model.
        prompt: (P,) its tokens.
        max_tokens: the most tokens behind the prompt.
    """

    rules: tuple[Rule, ...]
    model: LanguageModel
    prompt: Tensor
    tokens: Tensor
    length: Tensor
    states: Any
    raw: Tensor

    def __init__(self, rules: Sequence[Rule], model: LanguageModel, prompt: Tensor, max_tokens: int):
        self.rules, self.model, self.prompt = tuple(rules), model, prompt
        self.tokens = torch.zeros(1, 0, dtype=torch.int64)
        self.length = torch.zeros(1, dtype=torch.int64)
        self.states = [rule.start(model, prompt) for rule in self.rules]
        self.companions: list[list[tuple[LanguageModel, Prefixes]]] = []
        self.room = math.inf
        """The most tokens that the companions can read behind their prompts."""
        for rule in self.rules:
            pairs = rule.companions(model, prompt)
            for other, tokens in pairs:
                check_vocabulary(rule, model, other)
                if other.longest is not None:
                    self.room: float = min(self.room, other.longest - len(tokens))
            self.companions.append([(other, other.prefixes(tokens, max_tokens)) for other, tokens in pairs])
        self.remembers: list[bool] = [type(rule).advance is not Rule.advance for rule in self.rules]
        self.given: list[Tensor | None] = [None] * len(self.rules)
        self.others: list[tuple[Tensor, ...]] = [()] * len(self.rules)
        self.raw = torch.zeros(1, model.vocabulary, dtype=torch.float64)
        self.checked = False

    def __call__(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """The law of each row after all rules (A, V), and the log of the mass that they kept together (A,).

        A is the number of rows, or less: then it is the first rows that are asked about.

        Raises:
            MotesError: a rule left no token, or NaN, or a law that does not add to one; the message says which rule
                and in how many rows. Or a companion returned NaN.
        """
        self.raw = log_prob
        kept = torch.zeros(len(log_prob), dtype=torch.float64)
        for at, rule in enumerate(self.rules):
            if self.remembers[at]:
                self.given[at] = log_prob
            pairs = self.companions[at]
            self.others[at] = tuple(_law(rule, other, prefixes)[: len(log_prob)] for other, prefixes in pairs)
            changed, mass = rule(log_prob, self._seen(at))
            if changed.shape != log_prob.shape or mass.shape != kept.shape:
                raise ShapeError(
                    f"the rule {rule!r} must return {tuple(log_prob.shape)} and {tuple(kept.shape)}, not "
                    f"{tuple(changed.shape)} and {tuple(mass.shape)}"
                )
            bad = torch.isnan(mass) | (torch.isneginf(mass) & ~torch.isneginf(log_prob).all(1))
            if bad.any():
                raise MotesError(
                    f"the rule {rule!r} leaves no token in {int(bad.sum())} of {len(bad)} rows (or NaN): every rule "
                    "must keep at least one token that the rules before it keep; weaken it or change the order"
                )
            if not self.checked:  # of the first law only, since it costs as much as a rule
                total = torch.logsumexp(changed, -1)
                if bool((total.abs() > SUM).any()):
                    raise MotesError(
                        f"the rule {rule!r} returns probabilities that add to {float(total[0].exp()):.6g}: divide them "
                        "by that and return its log as the mass kept (motes.language.rule.renormalised does both)"
                    )
            log_prob, kept = changed, kept + mass
        self.checked: bool = True
        return log_prob, kept

    def extend(self, parent: Tensor, token: Tensor) -> None:
        """Let row i become the old row `parent[i]` with `token[i]` behind it, (A',) int64 each; -1 adds nothing."""
        if not self.rules:
            return
        on = torch.nonzero(token >= 0)[:, 0]
        for at, rule in enumerate(self.rules):
            given, before = self.given[at], self.states[at]
            after = None if before is None else take(before, parent)
            if self.remembers[at] and given is not None and len(on):
                moved = rule.advance(self._taken(at, parent[on]), given[parent[on]], token[on])
                after = moved if len(on) == len(parent) else scattered(after, moved, on)
            self.states[at] = after
            for _, prefixes in self.companions[at]:
                prefixes.extend(parent, token)
        tokens, length = self.tokens[parent], self.length[parent]
        if len(on) and int(length[on].max()) == tokens.shape[1]:
            tokens = torch.cat([tokens, torch.full((len(parent), 1), -1)], 1)
        tokens[on, length[on]] = token[on]
        self.tokens, self.length = tokens, length + (token >= 0)
        if self.room < math.inf and int(self.length.max()) > self.room:
            raise MotesError(
                f"a text has {int(self.length.max())} tokens, but another context that a rule compares it with leaves "
                f"room for {self.room}: shorten that context, or write fewer tokens"
            )

    def memory(self) -> tuple[Any, ...]:
        """What the last law was found from, for `recall`."""
        return self.raw, list(self.given), list(self.others), self.tokens, self.length, list(self.states)

    def recall(self, memory: tuple[Any, ...]) -> None:
        """Make `memory` what the last law was found from, for the rows that it was found for."""
        self.raw, self.given, self.others, self.tokens, self.length, self.states = memory

    def _seen(self, at: int) -> SeenTokens:
        state, others, rows = self.states[at], self.others[at], len(self.raw)
        if state is not None and rows < len(self.length):
            state = take(state, torch.arange(rows))
        return SeenTokens(self.model, self.prompt, self.tokens[:rows], self.length[:rows], self.raw, state, others)

    def _taken(self, at: int, parent: Tensor) -> SeenTokens:
        seen = self._seen(at)
        return replace(
            seen,
            tokens=seen.tokens[parent],
            length=seen.length[parent],
            raw=seen.raw[parent],
            state=None if seen.state is None else take(seen.state, parent),
            others=tuple(other[parent] for other in seen.others),
        )


def _law(rule: Rule, other: LanguageModel, prefixes: Prefixes) -> Tensor:
    """The law (A, V) float64 of a companion."""
    logits = prefixes.logits.detach().cpu()
    bad = ~torch.isfinite(logits.amax(1))  # NaN if any is, +inf if any is, -inf if all are
    if bad.any():
        raise MotesError(
            f"{other.name}, which {type(rule).__name__} asks, returned NaN or infinite logits in {int(bad.sum())} of "
            f"{len(bad)} rows: look at its weights and its number type"
        )
    return torch.log_softmax(logits.double(), -1)
