"""Tokens chosen with a look at what the texts that come next are worth, a random set of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from motes.core.resampling.designs.optimal import thin
from motes.errors import MotesError, ShapeError
from motes.language.constraint import distinct
from motes.language.generation.frontier import Front
from motes.language.generation.potential import OnTokens, Potential, Reward, ask
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
    check_size(k)
    if log_prob.ndim != 2 or log_prob.dtype != torch.float64:
        raise ShapeError(f"log_prob must be (M, V) float64, not {tuple(log_prob.shape)} {log_prob.dtype}")
    m, width = log_prob.shape
    ids = torch.arange(m) if ids is None else ids
    kept, log_q = thin(rng.at("set"), log_prob, k, ids)
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


def check_size(k: object, name: str = "lookahead") -> None:
    """The size of a set is a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise MotesError(f"{name} must be a whole number of at least 1, not {k!r}")


def guides(
    reward: Reward | Potential | None, twist: Reward | None, steer: int | None, lookahead: int | None = None
) -> tuple[Reward | None, Reward | None, int | None]:
    """Who judges finished texts, who unfinished ones, and after how many tokens.

    Raises:
        MotesError: the twist is no function, there is no reward or twist to ask on the way or about tokens ahead.
    """
    if steer is not None and reward is None and twist is None:
        raise MotesError("steer asks about unfinished texts, and there is nothing to ask: give a reward or a twist")
    if isinstance(reward, Potential):
        reward, twist = reward.complete, twist or reward.prefix
    if twist is not None and not callable(twist):
        raise MotesError(f"twist must be a function of a list of texts, not {type(twist).__name__}")
    if lookahead is not None:
        check_size(lookahead)
        if reward is None and twist is None:
            raise MotesError("lookahead needs a reward or a twist to ask")
        steer = steer or 1
    twist = twist or (reward if steer else None)
    return reward, twist, 1 if twist is not None and steer is None else steer


def worth(
    reward: Reward | None,
    twist: Reward | None,
    front: Front,
    texts: tuple[Tensor, Tensor],
    row: Tensor,
    token: Tensor,
    before: Tensor,
    t: int,
) -> Tensor:
    """What each of m texts is worth with its next token behind it, before the model is asked about it.

    The reward if the token ends the text or is its last one, else the twist; -inf where the constraint does not accept
    it. An unfinished text that the twist finds worth -inf may yet end well: it stays at `before`. Every distinct text
    is asked about once.

    Args:
        reward, twist: who is asked; None says 0 of finished texts, and `before` of unfinished ones.
        front: the rows that the texts stand in.
        texts: their tokens (m, max_tokens) and lengths (m,).
        row: (m,) where they stand.
        token: (m,) int64.
        before: (m,) what they were worth without it.
        t: the step, for messages.
    """
    tokens, length = texts
    ended = torch.isin(token, torch.tensor(front.model.end))
    cut = ~ended & (length + 1 == tokens.shape[1])
    alive = torch.ones_like(ended)
    if front.recogniser is not None:
        if not front.recogniser.full:
            alive = front.recogniser.test(row, token)
        last = alive & cut
        if last.any():
            alive[last] = front.recogniser.accepts(row[last], token[last])
    over = ended | cut
    value = torch.where(over, 0.0, before)
    for judge, asked, what in ((reward, over & alive, "reward"), (twist, ~over & alive, "twist")):
        if judge is None or not asked.any():
            continue
        index = torch.nonzero(asked)[:, 0]
        pairs, which = distinct(row[index], token[index])
        first = torch.zeros(len(pairs), dtype=torch.int64)
        first[which] = index  # any of the equal ones
        after = torch.where(ended, 0, 1).tolist()  # an end token is not shown
        own = [torch.cat([tokens[i, : int(length[i])], token[i : i + after[i]]]) for i in first.tolist()]
        said = _ask(judge, front, own, t, what)[which]
        value[index] = torch.where(torch.isneginf(said) & ~over[index], before[index], said)
    return value.masked_fill(~alive, -torch.inf)


def _ask(judge: Reward, front: Front, own: Sequence[Tensor], t: int, what: str) -> Tensor:
    texts = [front.model.decode(text.tolist()) for text in own]
    return ask(judge, texts, own if isinstance(judge, OnTokens) else (), t, what)


def ahead(
    rng: Rng, k: int, reward: Reward | None, twist: Reward | None, x: dict[str, Any], drawn: Tensor
) -> tuple[Tensor, Tensor]:
    """(N,) the next token of the particles `drawn` of a generation, -1 for others and in a dead end; the gain (N,).

    The gain is what `draw` says less the worth of the token: reward and twist are paid for elsewhere, as of any token,
    so that they may as well not be paid for at once.
    """
    front, before = x["frontier"].front, x["provisional"]
    token = torch.full((len(drawn),), -1, dtype=torch.int64)
    gained, law = torch.zeros_like(before), front.law.log_prob
    for ids in torch.nonzero(drawn)[:, 0].split(max(1, 2**24 // law.shape[1])):
        row, texts = x["frontier"].row[ids], (x["tokens"][ids], x["length"][ids])
        t = int(texts[1].max()) + 1

        def of(place: Tensor, what: Tensor, ids=ids, row=row, texts=texts, t=t) -> Tensor:
            those = (texts[0][place], texts[1][place])
            return worth(reward, twist, front, those, row[place], what, before[ids[place]], t)

        token[ids], log_weight, phi = draw(rng, law[row], k, of, ids=ids)
        gained[ids] = torch.where(token[ids] < 0, -torch.inf, log_weight - phi)
    return token, gained
