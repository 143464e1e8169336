"""The tokens whose probability reaches a threshold that falls with the entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import entropy, keep_where


@rules.register
@dataclass(frozen=True)
class Eta(Rule):
    """Keep the tokens with p >= min(threshold, sqrt(threshold) exp(-H)), H the entropy; always the most probable one.

    A uniform law is never cut.

    kept is the log of the mass p(S) of the set S; the law of whole texts is p(y) where each token lies in its set.

    Args:
        threshold: in (0, 1); the authors use 3e-4 to 4e-3.

    References:
        Hewitt, Manning & Liang (2022), Truncation sampling as language model desmoothing, Findings of EMNLP, section 4.
    """

    threshold: float

    def __post_init__(self) -> None:
        check.number("eta", "threshold", self.threshold, 0, 1, open_low=True, open_high=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        cut = math.log(self.threshold)
        least = torch.minimum(0.5 * cut - entropy(log_prob), log_prob.amax(-1)).clamp(max=cut)
        return keep_where(log_prob, log_prob >= least[:, None])
