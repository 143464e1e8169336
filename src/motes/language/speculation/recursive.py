"""Recursive rejection: several independent drafts of one token, tried one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng import Rng


def select(rng: Rng, p: Tensor, q: Tensor, drafts: Tensor) -> tuple[Tensor, Tensor]:
    """A token of the law p, if possible one of the drafts.

    With p_1 = p, draft x_i is accepted with probability min(1, p_i(x_i) / q(x_i)); otherwise p_{i+1} is [p_i - q]_+
    normalised. A token from the last of these laws follows if no draft is accepted.

    Args:
        rng: the address of the round.
        p: (N, V) float64 probabilities of the model.
        q: (N, V) of the drafts.
        drafts: (N, k) int64, independent draws from q.

    Returns:
        (N,) the token, and (N,) which draft it is, -1 for none.

    References:
        Jeon, Gagrani, Goel, Park, Lee & Lott (2024), Recursive speculative decoding, arXiv 2402.14160, section 3.
    """
    N, k = drafts.shape
    which = torch.full((N,), -1, dtype=torch.int64)
    for i in range(k):
        at = drafts[:, i : i + 1]
        chance = torch.where(which < 0, (p.gather(1, at) / q.gather(1, at))[:, 0].clamp(max=1), 0.0)
        which = torch.where(rng.at("accept", inner=i).bernoulli(chance), i, which)
        p = residual(p, q)
    rest = rng.at("rest").categorical(p.log())
    return torch.where(which < 0, rest, drafts.gather(1, which.clamp(min=0)[:, None])[:, 0]), which


def rate(p: Tensor, q: Tensor, k: int) -> Tensor:
    """The probability that one of k drafts is accepted: 1 - prod_i (1 - sum min(p_i, q))."""
    missed = torch.ones(p.shape[:-1], dtype=torch.float64)
    for _ in range(k):
        missed = missed * (1 - torch.minimum(p, q).sum(-1))
        p = residual(p, q)
    return 1 - missed


def residual(p: Tensor, q: Tensor) -> Tensor:
    """[p - q]_+ normalised; p itself where nothing is left (then p = q, and it is never used)."""
    rest = (p - q).clamp(min=0)
    mass = rest.sum(-1, keepdim=True)
    return torch.where(mass > 0, rest / mass.clamp(min=1e-300), p)
