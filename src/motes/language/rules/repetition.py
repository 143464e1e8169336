"""Tokens that have occurred lose probability by a power."""

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
class Repetition(Rule):
    """Sample from p^penalty for tokens that occurred, p for the others: scores of tokens that occurred times `penalty`.

    The scores are log-probabilities, all negative. transformers multiplies negative raw logits and divides positive
    ones, which depends on the model's arbitrary constant; given log-probabilities it agrees.

    kept is the log of the sum of these factors; the law of whole texts is the product of p(token)^penalty over tokens
    that occurred before and p(token) over the others, up to one constant.

    Args:
        penalty: positive; above 1 discourages.
        prompt: whether tokens of the prompt count as occurred.

    References:
        Keskar, McCann, Varshney, Xiong & Socher (2019), CTRL, arXiv 1909.05858, section 4.1.
    """

    penalty: float = 1.2
    _: KW_ONLY
    prompt: bool = True

    def __post_init__(self) -> None:
        check.number("repetition", "penalty", self.penalty, 0, math.inf, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        occurred = occurs(tokens_so_far(seen.prompt, seen.tokens, self.prompt), log_prob.shape[1])
        return renormalised(torch.where(occurred, log_prob * self.penalty, log_prob))
