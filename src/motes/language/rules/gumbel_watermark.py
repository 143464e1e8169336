"""A watermark that leaves the law of a single text alone: the noise of the draw comes from a key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.watermark import Detection, check_key, keyed_uniform, last_tokens, marks


@rules.register
@dataclass(frozen=True)
class GumbelWatermark(Rule):
    """Take the token with the largest log p + g, g Gumbel noise by key and tokens before: argmax u^(1/p).

    Over random keys a token has the law p exactly. For one key all is decided: every particle writes the same text
    (`softness=0`). With a positive softness the token is drawn from softmax((log p + g) / softness), so that texts
    differ; then, over random keys, the law is p no longer but flatter.

    What it gives is normalised by itself, so kept is zero: the law of whole texts for one key is the product of these
    next-token laws, with and without `globalise`. (With the log of the token's probability as the kept mass the average
    over keys would be p^2.)

    Args:
        key: a secret whole number.
        width: how many tokens before decide the noise.
        softness: at least 0.

    References:
        Aaronson & Kirchner (2022), Watermarking GPT outputs; Kuditipudi, Thickstun, Hashimoto & Liang (2024), Robust
            distortion-free watermarks for language models, TMLR, section 2.
    """

    key: int
    _: KW_ONLY
    width: int = 4
    softness: float = 0.0

    def __post_init__(self) -> None:
        check_key("gumbel_watermark", self.key, self.width)
        check.number("gumbel_watermark", "softness", self.softness, 0, math.inf)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        context = last_tokens(seen.prompt, seen.tokens, seen.length, self.width)
        score = log_prob - torch.log(-torch.log(keyed_uniform(self.key, context, log_prob.shape[1])))
        kept = torch.zeros(len(log_prob), dtype=log_prob.dtype)
        if self.softness:
            return torch.log_softmax(score / self.softness, -1), kept
        law = torch.full_like(log_prob, -torch.inf)
        return law.scatter_(1, score.argmax(-1, keepdim=True), 0.0), kept

    def detect(self, tokens: Sequence[int] | Tensor, vocabulary: int, prompt: Sequence[int] | Tensor = ()) -> Detection:
        """The sum of -log(1 - u) over a text, which is Gamma(n, 1) without this watermark; the p-value is its tail."""
        u = marks(self.key, self.width, tokens, vocabulary, prompt)
        n, score = len(u), float(-torch.log1p(-u).sum())
        if not n:
            return Detection(0, 0.0, 0.0, 1.0)
        shape, at = torch.tensor(float(n), dtype=torch.float64), torch.tensor(score, dtype=torch.float64)
        return Detection(n, score, (score - n) / math.sqrt(n), float(torch.special.gammaincc(shape, at)))
