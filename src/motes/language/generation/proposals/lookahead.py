"""Tokens chosen with a look at what the texts that come next are worth, a random set of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.resampling.designs.optimal import thin
from motes.errors import ShapeError, check_whole
from motes.language.generation.prefix import NextTokens, PrefixState
from motes.language.generation.reward_account import RewardAccount
from motes.rng import Rng

Worth = Callable[[Tensor, Tensor], Tensor]


def draw(
    rng: Rng, log_prob: Tensor, k: int, worth: Worth, *, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each particle that is drawn with its worth in mind, with the weight that this takes.

    Let p be a row's law and phi(x) what the text with the token x behind it is worth, nats. A set S of k tokens is
    drawn without replacement, x with probability q(x) = min(1, c p(x)), sum q = k
    (`motes.core.resampling.thin`). Then

        w = sum over S of p(x) exp(phi(x)) / q(x)

    has the mean sum_x p(x) exp(phi(x)) over all tokens, and only S is asked about. The token is drawn from S in
    proportion to its part of the sum, so that E[w 1{x}] = p(x) exp(phi(x)) for every token x. Where phi is constant, w
    is exp(phi) without noise. With k = 1 it is a plain draw from p with w = exp(phi(x)); where no more than k tokens
    have positive probability, S is all of them.

    Args:
        rng: an address of the particles.
        log_prob: (M, V) float64, their laws.
        k: the size of S.
        worth: maps places (m,) among the M and tokens (m,) to phi (m,) float64, nats; -inf forbids a token.
        ids: (M,) int64, the numbers of the particles; None: 0..M-1.

    Returns:
        token (M,) int64, -1 where no token of S is worth anything; log w (M,) float64, -inf there; phi of the token.

    Raises:
        MotesError: k is not a whole number of at least 1.
        ShapeError: log_prob is something else.

    References:
        Fearnhead & Clifford (2003), J. R. Statist. Soc. B 65(4), for the set; Lew et al. (2023), arXiv 2306.03081, for
        proper weights of what is chosen with chance in the proposal; Pitt & Shephard (1999), JASA 94(446), for k = V.

    Example:
        >>> p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log().expand(20000, 3)
        >>> token, log_weight, _ = draw(Rng(0), p, 2, lambda row, token: -token.double())
        >>> truth = 0.5 + 0.3 * 0.36788 + 0.2 * 0.13534
        >>> abs(float(log_weight.exp().mean()) - truth) < 0.01
        True
    """
    check_whole(1, lookahead=k)
    if log_prob.ndim != 2 or log_prob.dtype != torch.float64:
        raise ShapeError(f"log_prob must be (M, V) float64, not {tuple(log_prob.shape)} {log_prob.dtype}")
    m, width = log_prob.shape
    ids = torch.arange(m) if ids is None else ids
    kept, log_q = thin(rng.at("set"), log_prob, k, ids=ids)
    p, chosen = torch.topk(log_prob.masked_fill(~kept, -torch.inf), min(k, width), dim=1)
    place, slot = torch.nonzero(~torch.isneginf(p), as_tuple=True)
    value = torch.full_like(p, -torch.inf)
    value[place, slot] = worth(place, chosen[place, slot]).to(value)
    score = torch.where(torch.isneginf(p), -torch.inf, value + p - log_q.gather(1, chosen))
    log_weight = torch.logsumexp(score, 1)
    token = torch.full((m,), -1, dtype=torch.int64)
    phi = torch.full((m,), -torch.inf, dtype=torch.float64)
    alive = torch.nonzero(~torch.isneginf(log_weight))[:, 0]
    if len(alive):
        pick = rng.at("token").shard(ids[alive]).categorical(score[alive])
        token[alive], phi[alive] = chosen[alive, pick], value[alive, pick]
    return token, log_weight, phi


@dataclass(frozen=True)
class Lookahead:
    """Draws next tokens with what reward and twist say of `k` texts that may come of each.

    The gain is what `draw` says less the worth of the token: reward and twist are paid for elsewhere, as of any token,
    so that they may as well not be paid for at once.
    """

    k: int
    account: RewardAccount

    def __call__(self, rng: Rng, state: PrefixState, drawn: Tensor) -> NextTokens:
        law, before = state.reader.law.log_prob, state.provisional
        token = torch.full((len(drawn),), -1, dtype=torch.int64)
        gained = torch.zeros_like(before)
        for ids in torch.nonzero(drawn)[:, 0].split(max(1, 2**24 // law.shape[1])):
            row, texts = state.place[ids], state.sequences.take(ids)
            t = int(texts.length.max()) + 1

            def worth(place: Tensor, what: Tensor, ids=ids, row=row, texts=texts, t=t) -> Tensor:
                return self.account.worth(state.reader, texts.take(place), row[place], what, before[ids[place]], t)

            token[ids], log_weight, phi = draw(rng, law[row], self.k, worth, ids=ids)
            gained[ids] = torch.where(token[ids] < 0, -torch.inf, log_weight - phi)
        return NextTokens(token, gained, found(token))


def found(token: Tensor) -> Tensor:
    """(N,) what belongs to a token however it was chosen: nothing, and -inf where none was found."""
    return torch.where(token < 0, -torch.inf, 0.0).double()
