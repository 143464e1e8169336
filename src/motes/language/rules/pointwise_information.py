"""Tokens that the prompt makes more probable than they would be without it."""

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
from motes.language.rules.ranking import renormalised


@rules.register
@dataclass(frozen=True)
class PointwiseInformation(Rule):
    """Sample from p / p0^strength, p0 the law of the same text behind another prompt.

    Log p - log p0 is the pointwise mutual information of token and prompt. It favours rare tokens that the model hardly
    expects at all, so put a truncation (`min_p`) before it.

    kept is log sum p / p0^strength; the law of whole texts is p(y) / p0(y)^strength up to one constant, on the texts
    that the rules before keep.

    Args:
        context: the other prompt, a text or chat messages; only the text behind it is the same.
        other: the model that reads it; None is the run's own.
        strength: at least 0; 0 changes nothing.

    References:
        Li, Galley, Brockett, Gao & Dolan (2016), A diversity-promoting objective function for neural conversation
            models, NAACL, equation 9; van der Poel, Cotterell & Meister (2022), Mutual information alleviates
            hallucinations in abstractive summarization, EMNLP, section 3.
    """

    context: str | Sequence[Message]
    _: KW_ONLY
    strength: float = 0.5
    other: LanguageModel | None = None

    def __post_init__(self) -> None:
        check.context("pointwise_information", self.context, self.other)
        check.number("pointwise_information", "strength", self.strength, 0, math.inf)

    def companions(self, model: LanguageModel, prompt: Tensor) -> Sequence[tuple[LanguageModel, Tensor]]:
        return (paired(self.context, self.other, model),)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        tilted = log_prob - self.strength * other_law(self, log_prob, seen)
        return renormalised(torch.where(torch.isneginf(log_prob), log_prob, tilted))
