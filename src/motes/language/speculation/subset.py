"""Any-subset speculation: a masked model drafts several places at once and verifies them itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, NanLogPotential, ShapeError, check_whole, name_particles
from motes.language.speculation.single import verify
from motes.rng import Rng

MaskedModel = Callable[[Tensor], Tensor]
"""Tokens (M, T) int64, -1 where one is masked, to the log-probabilities (M, T, V) of each place given the others."""


@dataclass(frozen=True)
class Filled:
    """Texts without masked places, and what they cost.

    Attributes:
        tokens: (N, T) int64.
        calls: how often the model was called.
        rows: how many rows these calls had together.
        drafted: (N,) int64, the drafts of each text.
        accepted: (N,) int64, those that were accepted.
    """

    tokens: Tensor
    calls: int
    rows: int
    drafted: Tensor
    accepted: Tensor


def fill(
    rng: Rng,
    model: MaskedModel,
    tokens: Tensor,
    *,
    order: Tensor | None = None,
    drafts: int = 4,
    ids: Tensor | None = None,
) -> Filled:
    """Fill masked places as if one by one in a given order, with several of them decided in two calls of the model.

    The law is that of drawing the next place of the order from the model given all places that are known, and so on
    to the last. A round draws the next k places independently, each given what is known (one call); the law q_j of
    place j is not the one to follow, p_j, in which the drafts before it are known as well. One call with k rows a text
    gives all p_j. Draft j is accepted with min(1, p_j / q_j), the first that is not is replaced by a draw from
    [p_j - q_j]_+ normalised, and behind the last follows a draw from p. Exact, as single drafts are. The first draft
    is always accepted, since p_1 = q_1, and another token follows it: T masked places take at most T calls.

    Worth it where a call with k rows costs much the same as one with one, and places are nearly independent given what
    is known.

    Args:
        rng: the address of the texts.
        model: see `MaskedModel`; its log-probabilities at places that are known are not read.
        tokens: (N, T) int64, -1 for the places to fill.
        order: (T,) or (N, T) int64, the places in the order in which they are filled; those that are known are left
            out. From the first to the last if None. Laws of masked models depend on it.
        drafts: the most places of a round, at least 1.
        ids: (N,) int64, the numbers of the texts; None: 0..N-1.

    Raises:
        MotesError: an argument outside its range.
        ShapeError: the tokens, the order or what the model returns have another shape.
        NanLogPotential: NaN, +inf or nothing but -inf where a token is drawn.

    References:
        Guo & Ermon (2025), Reviving any-subset autoregressive models with principled parallel sampling and speculative
        decoding, arXiv 2504.20456. There one call gives all p_j by its attention mask; here they are rows.

    Example:
        >>> def pairs(tokens):  # two places that are equal with probability 0.9
        ...     other = tokens.flip(1)[..., None]
        ...     law = torch.where(other == torch.arange(2), 0.9, 0.1)
        ...     return torch.where(other < 0, 0.5, law).double().log()
        >>> found = fill(Rng(0), pairs, torch.full((2000, 2), -1))
        >>> found.calls, abs(float((found.tokens[:, 0] == found.tokens[:, 1]).double().mean()) - 0.9) < 0.03
        (2, True)
    """
    places, count = _places(tokens, order)
    check_whole(1, drafts=drafts)
    n, ids = len(tokens), torch.arange(len(tokens)) if ids is None else ids
    tokens, at = tokens.clone(), torch.zeros(n, dtype=torch.int64)
    drafted, accepted = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    calls = rows = turn = 0
    while len(open_ := torch.nonzero(at < count)[:, 0]):
        here, left = rng.at(f"round-{turn}"), (count - at)[open_]
        some = left.clamp(max=drafts)
        k, shard = int(some.max()), ids[open_]
        # (M, k + 1) the next places; behind the last one any place will do
        ahead = (at[open_, None] + torch.arange(k + 1)).clamp(max=places.shape[1] - 1)
        where = places[open_].gather(1, ahead)
        log_q, bad = _laws(model, tokens[open_], where[:, :k])
        _check(bad & (torch.arange(k) < some[:, None]), shard)
        calls, rows = calls + 1, rows + len(open_)
        guess = torch.stack([here.at(f"draft-{j}").shard(shard).categorical(log_q[:, j]) for j in range(k)], 1)
        # row (i, j) knows the first j drafts; those that ask nothing new are left out
        asked = (torch.arange(1, k + 1) <= some[:, None]) & (torch.arange(1, k + 1) < left[:, None])
        log_p, bad = torch.cat([log_q[:, :1], log_q], 1), torch.zeros(len(open_), k + 1, dtype=torch.bool)
        if asked.any():
            i, j = torch.nonzero(asked).unbind(1)
            text = tokens[open_][i]
            for d in range(k):
                on = j + 1 > d
                text[on, where[i[on], d]] = guess[i[on], d]
            found, wrong = _laws(model, text, where[i, j + 1][:, None])
            log_p[i, j + 1], bad[i, j + 1] = found[:, 0], wrong[:, 0]
            calls, rows = calls + 1, rows + len(i)
        passed, token = verify(here, shard, log_p, log_q, guess, some)
        # what follows drafts that cannot stand together need not be a law, and nothing is drawn from it
        _check(bad & (torch.arange(k + 1) <= passed[:, None]), shard)
        for d in range(k + 1):
            new = torch.where(passed > d, guess[:, min(d, k - 1)], token)
            on = (d <= passed) & (d < left)
            tokens[open_[on], where[on, d]] = new[on]
        drafted[open_] += some
        accepted[open_] += passed
        at[open_] += torch.minimum(passed + 1, left)
        turn += 1
    return Filled(tokens, calls, rows, drafted, accepted)


def _places(tokens: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """The masked places of each text in their order (N, T), then others; how many they are (N,)."""
    if tokens.ndim != 2 or tokens.dtype != torch.int64:
        raise ShapeError(f"tokens must be (N, T) int64, not {tuple(tokens.shape)} {tokens.dtype}")
    if bool((tokens < -1).any()):
        raise MotesError("tokens must be -1 where they are masked and not negative elsewhere")
    n, T = tokens.shape
    order = torch.arange(T) if order is None else order
    if order.shape not in ((T,), (n, T)) or order.dtype != torch.int64:
        raise ShapeError(f"order must be ({T},) or ({n}, {T}) int64, not {tuple(order.shape)} {order.dtype}")
    order = order.expand(n, T)
    if bool((order.sort(1).values != torch.arange(T)).any()):
        raise MotesError(f"order must hold each place 0..{T - 1} once")
    masked = tokens.gather(1, order) < 0
    return order.gather(1, torch.argsort(~masked, dim=1, stable=True)), masked.sum(1)


def _laws(model: MaskedModel, tokens: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """The normalised laws (M, K, V) float64 of the places `where` (M, K), and (M, K) which of them are none."""
    out = model(tokens)
    if not isinstance(out, Tensor) or out.ndim != 3 or out.shape[:2] != tokens.shape:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(f"a masked model must return ({tokens.shape[0]}, {tokens.shape[1]}, V), not {shape}")
    at = where[..., None].expand(*where.shape, out.shape[2]).to(out.device)
    law = out.detach().gather(1, at).cpu().double()
    bad = ~torch.isfinite(law.amax(-1))  # NaN if any is, +inf if any is, -inf if all are
    return torch.log_softmax(torch.where(bad[..., None], 0.0, law), -1), bad


def _check(bad: Tensor, ids: Tensor) -> None:
    """No law that is drawn from is one of the `bad` (M, K)."""
    if bad.any():
        raise NanLogPotential(
            "the masked model returned NaN, +inf or nothing but -inf for a masked place of "
            f"{name_particles(ids[bad.any(1)].tolist())}: look at its weights and its number type"
        )
