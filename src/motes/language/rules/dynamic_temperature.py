"""A temperature between two bounds by the entropy's share of its largest value."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import entropy, tempered


@rules.register
@dataclass(frozen=True)
class DynamicTemperature(Rule):
    """Sample from p^(1/T) with T = low + (high - low) (H / log n)^exponent, n the number of tokens with mass.

    The form of llama.cpp: `low` where the model is sure, `high` where it knows nothing. With one token left T = low.

    kept is log sum p^(1/T); the law of whole texts is the product of p(token)^(1/T) with the T that each token's
    beginning leads to, up to one constant.

    Args:
        low: positive.
        high: at least `low`.
        exponent: positive.

    References:
        llama.cpp (2024), the sampler with a dynamic temperature (`dynatemp_range`, `dynatemp_exponent`).
    """

    low: float = 0.5
    _: KW_ONLY
    high: float = 1.5
    exponent: float = 1.0

    def __post_init__(self) -> None:
        check.number("dynamic_temperature", "low", self.low, 0, math.inf, open_low=True)
        check.number("dynamic_temperature", "high", self.high, self.low, math.inf)
        check.number("dynamic_temperature", "exponent", self.exponent, 0, math.inf, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        most = torch.isfinite(log_prob).sum(-1).double().log()
        share = (entropy(log_prob) / most.clamp(min=1e-12)).clamp(0, 1)
        return tempered(log_prob, self.low + (self.high - self.low) * share**self.exponent)
