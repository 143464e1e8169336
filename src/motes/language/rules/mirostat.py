"""A set of most probable tokens whose size is controlled so that the mean surprise meets a target."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.models.model import LanguageModel
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import keep_best, keep_where


class Controlled(Rule):
    """What both versions of Mirostat share: the state mu of each row, and its update."""

    target: float
    rate: float

    def start(self, model: LanguageModel, prompt: Tensor) -> Tensor:
        return torch.tensor([2.0 * self.target], dtype=torch.float64)

    def advance(self, seen: SeenTokens, log_prob: Tensor, token: Tensor) -> Tensor:
        surprise = -log_prob.gather(1, token[:, None])[:, 0] / math.log(2)
        return seen.state - self.rate * (surprise - self.target)

    def mu(self, log_prob: Tensor, seen: SeenTokens | None) -> Tensor:
        """(A,) the bound on the surprise of each row, bits; at its start without `seen`."""
        if seen is None or seen.state is None:
            return torch.full((len(log_prob),), 2.0 * self.target, dtype=torch.float64)
        return seen.state


@rules.register
@dataclass(frozen=True)
class Mirostat1(Controlled):
    """Keep the k most probable tokens, with k from a Zipf exponent and a bound mu that steers the mean surprise.

    With t_i = log((i+1)/i) and b_i = log(p_(i)/p_(i+1)) over the first `head` ranks, s = sum t b / sum t^2 and
    e = s - 1, k = round((e 2^mu / (1 - V^-e))^(1/s)) + 1. After a token x, mu falls by rate * (S - target) where
    S = -log2 p(x) with the law before the truncation; mu starts at 2 target. It follows exactly that the mean of S over
    n tokens is target + (mu_0 - mu_n) / (rate n).

    kept is the log of the mass p(S) of the k tokens; the law of whole texts is p(y) where each token lies in the set
    that its own beginning leads to.

    Args:
        target: mean surprise, bits a token; positive.
        rate: positive.
        head: how many ranks the exponent is estimated from, at least 2.

    References:
        Basu, Ramachandran, Keskar & Varshney (2021), Mirostat: a neural text decoding algorithm that directly controls
            perplexity, ICLR, algorithm 1.
    """

    target: float = 3.0
    _: KW_ONLY
    rate: float = 1.0
    head: int = 100

    def __post_init__(self) -> None:
        check.number("mirostat_1", "target", self.target, 0, math.inf, open_low=True)
        check.number("mirostat_1", "rate", self.rate, 0, math.inf, open_low=True)
        check.whole("mirostat_1", "head", self.head, 2)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        size = self.size(log_prob, self.mu(log_prob, seen))

        def enough(ranked: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return size[rows].clamp(max=ranked.shape[1]), size[rows] < ranked.shape[1]

        return keep_best(log_prob, enough)

    def size(self, log_prob: Tensor, mu: Tensor) -> Tensor:
        """(A,) int64, the k of each row."""
        vocabulary = log_prob.shape[1]
        ranked = torch.topk(log_prob, min(self.head, vocabulary), dim=-1).values
        rank = torch.arange(1, ranked.shape[1], dtype=torch.float64)
        t = (1 / rank).log1p()
        both = torch.isfinite(ranked[:, 1:])  # ranks without mass say nothing about the exponent
        b = torch.where(both, ranked[:, :-1] - ranked[:, 1:], 0.0)
        s = (b * t).sum(-1) / torch.where(both, t.square(), 0.0).sum(-1)
        s = torch.where(both.any(-1), s, torch.inf).clamp(min=1e-6)  # one token: k = 2, which keeps it
        e = s - 1
        near = e.abs() < 1e-9
        scale = torch.where(near, 1 / math.log(max(vocabulary, 2)), e / -torch.expm1(-e * math.log(max(vocabulary, 2))))
        # in logs: 2^mu may be huge; at most one token a row of the vocabulary
        log_k = (scale.log() + mu * math.log(2)) / s
        log_k = torch.where(torch.isinf(s), 0.0, log_k)
        k = torch.round(log_k.clamp(max=math.log(2.0 * vocabulary)).exp()).to(torch.int64) + 1
        return k.clamp(1, vocabulary)


@rules.register
@dataclass(frozen=True)
class Mirostat2(Controlled):
    """Keep the tokens whose surprise is at most mu bits, a bound that steers the mean surprise; at least the best one.

    After a token x, mu falls by rate * (S - target) where S = -log2 p(x) with the law before the truncation; mu starts
    at 2 target. The mean of S over n tokens is target + (mu_0 - mu_n) / (rate n) exactly. (llama.cpp measures S after
    the truncation, which is another controller.)

    kept is the log of the mass p(S) of the tokens kept; the law of whole texts is p(y) where each token lies in the set
    that its own beginning leads to.

    Args:
        target: mean surprise, bits a token; positive.
        rate: positive.

    References:
        Basu, Ramachandran, Keskar & Varshney (2021), Mirostat, ICLR, algorithm 2 (in the authors' code).
    """

    target: float = 5.0
    _: KW_ONLY
    rate: float = 0.1

    def __post_init__(self) -> None:
        check.number("mirostat_2", "target", self.target, 0, math.inf, open_low=True)
        check.number("mirostat_2", "rate", self.rate, 0, math.inf, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        least = torch.minimum(-self.mu(log_prob, seen) * math.log(2), log_prob.amax(-1))
        return keep_where(log_prob, log_prob >= least[:, None])
