"""Away from what the model says without the prompt: classifier-free guidance."""

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
class PromptGuidance(Rule):
    """Sample from p^scale p0^(1 - scale), p0 the law of the same text behind another prompt (an empty or negative one).

    A scale of 1 changes nothing, 0 gives the law of the other prompt, above 1 what sets the prompt apart is amplified.

    kept is log sum p^scale p0^(1 - scale); the law of whole texts is p(y)^scale p0(y)^(1 - scale) up to one constant.

    Args:
        context: the other prompt, a text or chat messages; only the text behind it is the same.
        other: the model that reads it; None is the run's own.
        scale: finite; 1.5 is usual.

    References:
        Sanchez, Spangher, Fan, Levi & Biderman (2024), Stay on topic with classifier-free guidance, ICML, equation 7.
    """

    context: str | Sequence[Message]
    _: KW_ONLY
    scale: float = 1.5
    other: LanguageModel | None = None

    def __post_init__(self) -> None:
        check.context("prompt_guidance", self.context, self.other)
        check.number("prompt_guidance", "scale", self.scale, -math.inf, math.inf)

    def companions(self, model: LanguageModel, prompt: Tensor) -> Sequence[tuple[LanguageModel, Tensor]]:
        return (paired(self.context, self.other, model),)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        other = other_law(self, log_prob, seen)
        tilted = other + self.scale * (log_prob - other)
        return renormalised(torch.where(torch.isneginf(log_prob), log_prob, tilted))
