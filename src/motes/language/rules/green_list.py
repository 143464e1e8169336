"""A watermark of favoured tokens: a keyed share of the vocabulary gains some nats at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import renormalised
from motes.language.watermark import Detection, binomial_tail, check_key, keyed_uniform, last_tokens, marks


@rules.register
@dataclass(frozen=True)
class GreenList(Rule):
    """Add `strength` nats to the green tokens, each token green with probability `share` by key and tokens before.

    Colours are independent (no list of exactly share * V tokens), so in a text without this watermark, over random
    keys, the number of green tokens among n different pairs of context and token is Binomial(n, share).

    kept is log sum p exp(strength [green]); the law of whole texts is p(y) exp(strength * (number of green tokens of
    y)) up to one constant.

    Args:
        key: a secret whole number.
        strength: finite, nats.
        share: in (0, 1).
        width: how many tokens before a token decide its colour; 0 is one list for all places.

    References:
        Kirchenbauer, Geiping, Wen, Katz, Miers & Goldstein (2023), A watermark for large language models, ICML,
            algorithm 2.
    """

    key: int
    _: KW_ONLY
    strength: float = 2.0
    share: float = 0.5
    width: int = 1

    def __post_init__(self) -> None:
        check_key("green_list", self.key, self.width)
        check.number("green_list", "strength", self.strength, -math.inf, math.inf)
        check.number("green_list", "share", self.share, 0, 1, open_low=True, open_high=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        context = last_tokens(seen.prompt, seen.tokens, seen.length, self.width)
        green = keyed_uniform(self.key, context, log_prob.shape[1]) < self.share
        return renormalised(torch.where(green, log_prob + self.strength, log_prob))

    def detect(self, tokens: Sequence[int] | Tensor, vocabulary: int, prompt: Sequence[int] | Tensor = ()) -> Detection:
        """How green a text is; the p-value is the exact binomial tail."""
        u = marks(self.key, self.width, tokens, vocabulary, prompt)
        n, green = len(u), int((u < self.share).sum())
        z = (green - n * self.share) / math.sqrt(n * self.share * (1 - self.share)) if n else 0.0
        return Detection(n, float(green), z, binomial_tail(green, n, self.share))
