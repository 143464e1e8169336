"""Coupled drafts: draft and model answer to the same random number, and a draft is accepted where they agree."""

from __future__ import annotations

import torch
from torch import Tensor


def inversion_rate(p: Tensor, q: Tensor) -> Tensor:
    """The probability (...,) that two laws (..., V) agree when one uniform number is inverted by both.

    Token v comes out of both where its steps of the two distribution functions overlap.
    """
    P, Q = p.cumsum(-1), q.cumsum(-1)
    return (torch.minimum(P, Q) - torch.maximum(P - p, Q - q)).clamp(min=0).sum(-1)


def gumbel_rate(p: Tensor, q: Tensor) -> Tensor:
    """The probability (...,) that two laws agree when the same Gumbel numbers are added to both: O(V^2).

    Token v wins both races with probability 1 / sum_w max(p_w / p_v, q_w / q_v).

    References:
        Daliri, Musco & Suresh (2024), Coupling without communication and drafter-invariant speculative decoding,
        arXiv 2408.07978.
    """
    tiny = 1e-300
    by_p, by_q = (law[..., None, :] / law[..., :, None].clamp(min=tiny) for law in (p, q))
    both = torch.maximum(by_p, by_q)
    possible = (p > 0) & (q > 0)
    return torch.where(possible, 1 / both.sum(-1), 0.0).sum(-1)
