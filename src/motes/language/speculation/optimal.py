"""The most that any scheme can accept of k independent drafts of one token."""

from __future__ import annotations

import torch
from torch import Tensor


def rate(p: Tensor, q: Tensor, k: int) -> Tensor:
    """The largest probability (...,) with which a token of law p can be one of k independent drafts of law q.

    By maximal flow and minimal cut between the tokens and the sets of drafts it is 1 + min_H [P(H) - Q(H)^k] over sets
    H of tokens, and the best H holds the tokens of the least p / q: O(V log V). With k = 1 it is one minus the total
    variation.

    References:
        Khisti, Ebrahimi, Dbouk, Behboodi, Memisevic & Louizos (2025), Multi-draft speculative sampling, ICLR,
        arXiv 2410.18234.
    """
    order = torch.argsort(torch.where(q > 0, p / q.clamp(min=1e-300), torch.inf), -1)
    inside_p = p.gather(-1, order).cumsum(-1)
    inside_q = q.gather(-1, order).cumsum(-1)
    return 1 + (inside_p - inside_q**k).amin(-1).clamp(max=0)
