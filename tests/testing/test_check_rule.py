"""The check of rules finds each law broken by a rule that breaks this one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from breaks import breaks
from motes.errors import MotesError
from motes.language import rules
from motes.language.generation.frontier import NextTokenLaw
from motes.language.rule import Rule, SeenTokens, renormalised
from motes.language.rules import temperature, top_k
from motes.testing import LawViolation, check_rule
from motes.testing.rules import TABLE, three_tokens

Law = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Made(Rule):
    """A rule that looks at nothing but the probabilities."""

    change: Law

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        return self.change(log_prob)


def two_best(log_prob: Tensor) -> Tensor:
    least = log_prob.topk(2).values[:, -1:]
    return log_prob.masked_fill(log_prob < least, -math.inf)


def right(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    return renormalised(two_best(log_prob))


def cut_only(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens are excluded and the rest is not divided by its mass."""
    return two_best(log_prob), renormalised(two_best(log_prob))[1]


def massless(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """The mass is forgotten."""
    return right(log_prob)[0], torch.zeros(len(log_prob), dtype=torch.float64)


def smoothed(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """A tenth of the mass goes to all tokens alike, excluded ones too."""
    return torch.logaddexp(log_prob + math.log(0.9), torch.full_like(log_prob, math.log(0.1 / 3))), 0 * log_prob[:, 0]


def crowded(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """A threshold that is taken over all rows."""
    return renormalised(log_prob.masked_fill(log_prob < log_prob.max() - 1.05, -math.inf))


@pytest.mark.parametrize(
    "change, law", [(cut_only, "normalised"), (massless, "mass"), (smoothed, "excluded"), (crowded, "rows")]
)
def test_a_law_that_is_broken_is_named(change: Law, law: str) -> None:
    with breaks(law):
        check_rule(Made(change), truncates=law == "mass")


def test_a_rule_that_is_right_passes() -> None:
    assert check_rule(Made(right), truncates=True).keys() == {"excluded", "mass", "normalised", "rows", "run", "state"}
    assert "excluded" not in check_rule(Made(smoothed), adds=True)


@dataclass(frozen=True)
class Remembers(Rule):
    """A second look at a text is answered in another way."""

    calls: list[int] = field(default_factory=list)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        self.calls.append(1)
        return renormalised(log_prob / (1 + len(self.calls) / 10))


@dataclass(frozen=True)
class Counts(Rule):
    """The temperature rises with each "a"; the count of a text is kept in its state."""

    mixed: bool = False

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        assert seen is not None
        return renormalised(log_prob / (1 + seen.state[:, None]))

    def start(self, model, prompt: Tensor) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def advance(self, seen: SeenTokens, log_prob: Tensor, token: Tensor) -> Tensor:
        new = seen.state + (token == 0)
        return new.flip(0) if self.mixed else new


def test_what_is_remembered_belongs_to_the_text() -> None:
    with breaks("state"):
        check_rule(Remembers())
    check_rule(Counts())
    with breaks("rows"):
        check_rule(Counts(mixed=True))


def test_a_law_that_is_not_the_stated_one_is_found_out() -> None:
    def p(text: tuple[int, ...]) -> float:
        return math.exp(sum(float(TABLE[text[i - 1] if i else -1, v]) for i, v in enumerate(text)))

    assert check_rule(temperature(0.5), target=lambda text: p(text) ** 2)["target"] < 1e-12
    with pytest.raises(LawViolation, match=r"after the text '\w+' .* is what the rule states"):
        check_rule(temperature(0.5), target=p)
    with breaks("target"):
        check_rule(top_k(1), target=p)  # texts that are never drawn and should be


def test_a_run_that_forgets_the_masses_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = property(lambda self: torch.zeros_like(self.kept_by_constraint))
    monkeypatch.setattr(NextTokenLaw, "log_mass", nothing)
    with breaks("run"):
        check_rule(rules.nucleus(0.75))


def test_companions_must_be_tables() -> None:
    class Other:
        pass

    @dataclass(frozen=True)
    class Accompanied(Made):
        def companions(self, model, prompt: Tensor):
            return ((Other(), prompt),)

    with pytest.raises(MotesError, match="companions that are a TableModel, with 3 tokens"):
        check_rule(Accompanied(right), model=three_tokens())
