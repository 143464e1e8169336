"""The tokens whose raw logit lies within some standard deviations of the largest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import keep_where


@rules.register
@dataclass(frozen=True)
class TopNSigma(Rule):
    """Keep the tokens with l >= max l - n * std(l), l the model's own logits over the whole vocabulary.

    The set is that of the raw law whatever stands before this rule (a mask or a top-k would change the standard
    deviation), so it does not depend on a temperature. Tokens that the model itself gives -inf are left out of it.

    kept is the log of the mass that the law given to the rule has on the set; the law of whole texts is p(y) where each
    token lies in its set.

    Args:
        n: positive; the authors use 0.3 to 1.5.

    References:
        Tang, Liu & Xu (2024), Top-n-sigma: not all logits are you need, arXiv 2411.07641, section 3.
    """

    n: float = 1.0

    def __post_init__(self) -> None:
        check.number("top_n_sigma", "n", self.n, 0, math.inf, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        raw = log_prob if seen is None else seen.raw
        finite = torch.isfinite(raw)
        count = finite.sum(-1, keepdim=True)
        if bool((count == raw.shape[1]).all()):
            spread = raw.std(-1, keepdim=True) if raw.shape[1] > 1 else torch.zeros_like(raw)
        else:
            mean = raw.masked_fill(~finite, 0.0).sum(-1, keepdim=True) / count
            square = (raw - mean).masked_fill(~finite, 0.0).square().sum(-1, keepdim=True)
            spread = (square / (count - 1).clamp(min=1)).sqrt()
        return keep_where(log_prob, raw >= raw.amax(-1, keepdim=True) - self.n * spread)
