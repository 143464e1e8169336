"""The tokens whose probability reaches a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import keep_where


@rules.register
@dataclass(frozen=True)
class Epsilon(Rule):
    """Keep the tokens with p >= threshold, and always the most probable one (of equal ones all).

    kept is the log of the mass p(S) of the set S; the law of whole texts is p(y) where each token lies in its set.

    Args:
        threshold: in (0, 1); the authors use 3e-4 to 9e-4.

    References:
        Hewitt, Manning & Liang (2022), Truncation sampling as language model desmoothing, Findings of EMNLP, section 4.
    """

    threshold: float

    def __post_init__(self) -> None:
        check.number("epsilon", "threshold", self.threshold, 0, 1, open_low=True, open_high=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        least = log_prob.amax(-1, keepdim=True).clamp(max=math.log(self.threshold))
        return keep_where(log_prob, log_prob >= least)
