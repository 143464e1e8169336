"""Tokens lose a number of nats for each time that they occurred."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import renormalised, tokens_so_far


@rules.register
@dataclass(frozen=True)
class Frequency(Rule):
    """Take `penalty` nats from every token for each time that it occurred in the text.

    kept is log sum p exp(-penalty * count); the law of whole texts is p(y) exp(-penalty * sum_v c_v (c_v - 1) / 2) up
    to one constant, c_v how often token v stands in y (with the prompt, what it adds to the prompt's counts).

    Args:
        penalty: finite, nats; negative encourages.
        prompt: whether tokens of the prompt count as occurred.

    References:
        OpenAI API (2021), `frequency_penalty`.
    """

    penalty: float = 0.5
    _: KW_ONLY
    prompt: bool = False

    def __post_init__(self) -> None:
        check.number("frequency", "penalty", self.penalty, -math.inf, math.inf)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        tokens = tokens_so_far(seen.prompt, seen.tokens, self.prompt)
        loss = (tokens >= 0).to(log_prob.dtype) * -self.penalty
        return renormalised(log_prob.scatter_add(1, tokens.clamp(min=0), loss))
