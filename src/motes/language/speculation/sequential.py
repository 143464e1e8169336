"""K-SEQ: several independent drafts of one token, each accepted by the same rule."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng import Rng


def select(rng: Rng, p: Tensor, q: Tensor, drafts: Tensor) -> tuple[Tensor, Tensor]:
    """A token of the law p, if possible one of the drafts; arguments and results as `recursive.select`.

    The first draft that passes min(1, p / (r q)) is taken. With b(r) = sum min(q, p / r), the least r in [1, k] with
    1 - (1 - b)^k <= r b lets the remainder p - min(q, p / r) (1 - (1 - b)^k) / b be a law again, which is drawn from
    if none passes.

    References:
        Sun, Suresh, Ro, Beirami, Jain & Yu (2023), SpecTr: fast speculative decoding via optimal transport, NeurIPS,
        algorithm 2.
    """
    k = drafts.shape[1]
    r, b = divisor(p, q, k)
    chance = (p / (r[:, None] * q.clamp(min=1e-300))).clamp(max=1).gather(1, drafts)
    passed = rng.at("accept").bernoulli(chance)
    first = passed.long().argmax(1)
    which = torch.where(passed.any(1), first, -1)
    share = (1 - (1 - b) ** k) / b.clamp(min=1e-300)
    rest = (p - torch.minimum(q, p / r[:, None]) * share[:, None]).clamp(min=0)
    rest = torch.where(rest.sum(1, keepdim=True) > 0, rest, p)
    other = rng.at("rest").categorical(rest.log())
    return torch.where(which < 0, other, drafts.gather(1, first[:, None])[:, 0]), which


def divisor(p: Tensor, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """r and b(r) (...,), by bisection from above, so that the remainder is never negative."""
    low = torch.ones(p.shape[:-1], dtype=torch.float64)
    high = torch.full_like(low, float(k))

    def share(r: Tensor) -> Tensor:
        return torch.minimum(q, p / r[..., None]).sum(-1)

    for _ in range(60):
        r = (low + high) / 2
        b = share(r)
        fits = 1 - (1 - b) ** k <= r * b
        low, high = torch.where(fits, low, r), torch.where(fits, r, high)
    return high, share(high)


def rate(p: Tensor, q: Tensor, k: int) -> Tensor:
    """The probability that one of k drafts is accepted, 1 - (1 - b)^k."""
    return 1 - (1 - divisor(p, q, k)[1]) ** k
