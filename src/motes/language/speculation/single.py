"""Speculative sampling: each drafted token is accepted or replaced by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng import Rng


def verify(rng: Rng, ids: Tensor, log_p: Tensor, log_q: Tensor, drafts: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """How many drafted tokens are accepted, and the token behind them; together they follow the model's law.

    The draft x_j ~ q_j is accepted with probability min(1, p_j(x_j) / q_j(x_j)). The first one that is not is replaced
    by a draw from [p_j - q_j]_+ normalised; behind the last one follows a draw from p. Exact for any q: a token comes
    out of place j with probability min(p, q) + [p - q]_+ = p, given those before it.

    Args:
        rng: the address of the round.
        ids: (N,) the particles.
        log_p: (N, L + 1, V) the model's laws at the start and behind each draft; -inf throughout in a dead end.
        log_q: (N, L, V) the laws of the drafts.
        drafts: (N, L) int64.
        count: (N,) how many drafts count.

    Returns:
        (N,) accepted, and (N,) the next token, -1 in a dead end.

    References:
        Leviathan, Kalman & Matias (2023), Fast inference from transformers via speculative decoding, ICML, algorithm 1.
        Chen, Borgeaud, Irving, Lespiau, Sifre & Jumper (2023), Accelerating large language model decoding with
        speculative sampling, arXiv 2302.01318, algorithm 2.
    """
    counts = torch.arange(drafts.shape[1]) < count[:, None]
    chance = torch.where(counts, ratios(log_p, log_q, drafts, counts).exp().clamp(max=1), 0.0)
    taken = rng.at("accept").shard(ids).bernoulli(chance)
    accepted = taken.long().cumprod(1).sum(1)
    return accepted, next_token(rng, ids, log_p, log_q, accepted, count, torch.ones(len(ids), dtype=torch.float64))


def rate(p: Tensor, q: Tensor) -> Tensor:
    """The probability that a draft is accepted, one minus the total variation: sum min(p, q), (...,) of (..., V)."""
    return torch.minimum(p, q).sum(-1)


def ratios(log_p: Tensor, log_q: Tensor, drafts: Tensor, counts: Tensor) -> Tensor:
    """(N, L) log p_j(x_j) - log q_j(x_j) of the drafts; 0 for those that do not count."""
    at = drafts.clamp(min=0)[..., None]
    found = log_p[:, :-1].gather(2, at)[..., 0] - log_q.gather(2, at)[..., 0]
    return torch.where(counts, found, 0.0)


def next_token(
    rng: Rng, ids: Tensor, log_p: Tensor, log_q: Tensor, accepted: Tensor, count: Tensor, scale: Tensor
) -> Tensor:
    """(N,) a draw from [scale p - q]_+ behind the accepted drafts, or from p behind the last that counts."""
    rows = torch.arange(len(ids))
    law = log_p[rows, accepted]
    if log_q.shape[1]:
        p, q = law.exp(), log_q[rows, accepted.clamp(max=log_q.shape[1] - 1)].exp()
        rest = (scale[:, None] * p - q).clamp(min=0)
        # where rounding leaves nothing, p and q were equal and a rejection has probability zero
        corrected = (accepted < count) & (rest.sum(1) > 0)
        law = torch.where(corrected[:, None], rest.log(), law)
    alive = ~torch.isneginf(law).all(1)
    token = torch.full_like(accepted, -1)
    if alive.any():
        token[alive] = rng.at("rest").shard(ids[alive]).categorical(law[alive])
    return token
