"""The sparse law that is nearest to the model's in a Bregman divergence, with a price for each token that it keeps."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import best, heads

HALVINGS = 60


@rules.register
@dataclass(frozen=True)
class Bregman(Rule):
    """The law q on k tokens that minimises D(q, p) + price * k, D a Bregman divergence.

    D is that of x^alpha / (alpha (alpha - 1)). The best k tokens are the most probable ones and the cost
    is discretely convex in k, so that k is found by bisection. On them, with nu such that q sums to one,

        primal, D(q, p):  q_i = (p_i^(alpha-1) + nu)^(1/(alpha-1)), for alpha = 1 p / p(S), for 2 p + (1 - p(S)) / k
        dual,   D(p, q):  q_i = p_i + nu q_i^(2-alpha).

    alpha = 1 is the Kullback-Leibler divergence, a top-k with k chosen: the first with p_(k+1) <= (e^price - 1) P_k.
    At alpha = 2 both forms agree. Of tokens with equal probability those with lower numbers come first.

    kept is the log of the mass p(S) of the k tokens; the law of whole texts is the product of p(S) q(token), which for
    alpha = 1 is p(y) where each token lies in its set.

    Args:
        price: positive; what one more token must gain.
        alpha: at least 1; above 1 for the dual.
        dual: whether the divergence is D(p, q).

    References:
        Noarov, Mallick, Wang, Joshi, Sun, Xie, Yu & Dobriban (2025), Foundations of top-k decoding for language models,
            NeurIPS, arXiv 2505.19371; the formulas are derived from the problem stated there.
    """

    price: float
    _: KW_ONLY
    alpha: float = 1.0
    dual: bool = False

    def __post_init__(self) -> None:
        check.number("bregman", "price", self.price, 0, math.inf, open_low=True)
        check.number("bregman", "alpha", self.alpha, 1, math.inf)
        if self.dual and self.alpha == 1:
            raise MotesError(
                "the dual form of bregman needs alpha above 1: at 1 each token that is dropped costs infinity"
            )

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        out, kept = torch.full_like(log_prob, -torch.inf), torch.zeros(len(log_prob), dtype=log_prob.dtype)
        rows = torch.arange(len(log_prob))
        for m in heads(log_prob.shape[1]):
            value, token = best(log_prob[rows], m)
            p = value.exp()
            size = self.size(p)
            edge = value.gather(1, size.clamp(max=m - 1)[:, None])[:, 0]
            certain = (size < m) & (value.gather(1, (size - 1)[:, None])[:, 0] > edge)
            certain |= torch.tensor(m == log_prob.shape[1])
            law = self.law(p, size).log()
            mass = torch.logsumexp(value.masked_fill(torch.arange(m) >= size[:, None], -torch.inf), -1)
            done = rows[certain]
            out[done] = out[done].scatter_(1, token[certain], law[certain])
            kept[done] = mass[certain]
            rows = rows[~certain]
            if not len(rows):
                break
        return out, kept

    def size(self, p: Tensor) -> Tensor:
        """(A,) int64: the first k, of p (A, m) in falling order, behind which one more token does not pay."""
        most = (p > 0).sum(-1)
        low, high = torch.ones_like(most), most
        while bool((low < high).any()):
            k = (low + high) // 2
            more = self.cost(p, (k + 1).clamp(max=p.shape[1])) + self.price
            stop = more >= self.cost(p, k)
            high, low = torch.where(stop, k, high), torch.where(stop | (low >= high), low, k + 1)
        return low

    def cost(self, p: Tensor, size: Tensor) -> Tensor:
        """(A,) the least divergence with `size` (A,) tokens, up to a constant of the row."""
        inside = torch.arange(p.shape[1]) < size[:, None]
        if self.alpha == 1:
            return -(p * inside).sum(-1).log()
        a, q = self.alpha, self.law(p, size)
        scale = 1 / (a * (a - 1))
        if self.dual:  # D(p_i, 0) = p_i^a / (a (a - 1)) outside
            gone = torch.where(inside, 0.0, p.pow(a) * scale).sum(-1)
            safe = torch.where(inside & (q > 0), q, 1.0)
            each = (p.pow(a) - safe.pow(a)) * scale - safe.pow(a - 1) / (a - 1) * (p - safe)
            return gone + torch.where(inside & (q > 0), each, 0.0).sum(-1)
        return (q.pow(a) * scale - p.pow(a - 1) * q / (a - 1)).masked_fill(~inside, 0.0).sum(-1)

    def law(self, p: Tensor, size: Tensor) -> Tensor:
        """(A, m) the best q on the first `size` (A,) tokens of p (A, m), which falls along each row."""
        inside = torch.arange(p.shape[1]) < size[:, None]
        p = p * inside
        mass = p.sum(-1, keepdim=True)
        if self.alpha == 1:
            return p / mass
        if self.alpha == 2:
            return torch.where(inside, p + (1 - mass) / size[:, None], 0.0)
        low, high = torch.zeros_like(mass), torch.ones_like(mass)  # nu = 1 gives sums of at least 1, see q >= nu^(..)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = self._with(p, middle, inside).sum(-1, keepdim=True) >= 1
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        q = self._with(p, high, inside)
        return q / q.sum(-1, keepdim=True)

    def _with(self, p: Tensor, nu: Tensor, inside: Tensor) -> Tensor:
        a = self.alpha
        if not self.dual:
            return torch.where(inside, (p.pow(a - 1) + nu).pow(1 / (a - 1)), 0.0)
        # the root of q - p - nu q^(2 - a) above p; where it lies above 1 the sum is too large anyway
        low, high = p, torch.ones_like(p)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = middle - p - nu * middle.pow(2 - a) >= 0
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return torch.where(inside, high, 0.0)
