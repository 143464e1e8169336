"""A temperature that falls where another context would say something else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.models.model import LanguageModel, Message
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.paired import other_law, paired
from motes.language.rules.ranking import tempered


@rules.register
@dataclass(frozen=True)
class KLTemperature(Rule):
    """Sample from p^(1/T) with T = base * 2^(-d / scale), d = KL(p, p of the text behind another prompt).

    The other prompt is the same request without its source: where the source matters the law is sharpened. T is at
    least 1e-6. Put it first, since d compares the law given to the rule with the other model's own.

    kept is log sum p^(1/T); the law of whole texts is the product of p(token)^(1/T) with the T that each token's
    beginning leads to, up to one constant.

    Args:
        context: the other prompt, a text or chat messages; only the text behind it is the same.
        other: the model that reads it; None is the run's own.
        base: the temperature where both contexts agree; positive.
        scale: positive, nats; the divergence at which the temperature is half of `base`.

    References:
        Chang, Reitter, Aksitov & Sung (2023), KL-divergence guided temperature sampling, arXiv 2306.01286, section 3.
    """

    context: str | Sequence[Message]
    _: KW_ONLY
    base: float = 1.0
    scale: float = 1.0
    other: LanguageModel | None = None

    def __post_init__(self) -> None:
        check.context("kl_temperature", self.context, self.other)
        check.number("kl_temperature", "base", self.base, 0, math.inf, open_low=True)
        check.number("kl_temperature", "scale", self.scale, 0, math.inf, open_low=True)

    def companions(self, model: LanguageModel, prompt: Tensor) -> Sequence[tuple[LanguageModel, Tensor]]:
        return (paired(self.context, self.other, model),)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        other = other_law(self, log_prob, seen)
        ratio = (log_prob - other).masked_fill(torch.isneginf(log_prob), 0.0)
        divergence = (log_prob.exp() * ratio).sum(-1).clamp(min=0)
        return tempered(log_prob, self.base * torch.exp2(-divergence / self.scale))
