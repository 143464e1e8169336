"""Tokens that have occurred lose a constant number of nats."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import occurs, renormalised, tokens_so_far


@rules.register
@dataclass(frozen=True)
class Presence(Rule):
    """Take `penalty` nats from every token that occurred in the text, however often.

    kept is log sum p exp(-penalty [occurred]); the law of whole texts is p(y) exp(-penalty * (number of tokens that
    occurred before in y)) up to one constant: n tokens with d different ones lose (n - d) penalties.

    Args:
        penalty: finite, nats; negative encourages.
        prompt: whether tokens of the prompt count as occurred.

    References:
        OpenAI API (2021), `presence_penalty`.
    """

    penalty: float = 0.5
    _: KW_ONLY
    prompt: bool = False

    def __post_init__(self) -> None:
        check.number("presence", "penalty", self.penalty, -math.inf, math.inf)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        occurred = occurs(tokens_so_far(seen.prompt, seen.tokens, self.prompt), log_prob.shape[1])
        return renormalised(torch.where(occurred, log_prob - self.penalty, log_prob))
