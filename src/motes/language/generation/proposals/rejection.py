"""Tokens drawn where validity can only be tested one by one: adaptive weighted rejection sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.errors import MotesError, ShapeError, check_name
from motes.rng import Rng

Test = Callable[[Tensor, Tensor], Tensor]
METHODS = ("auto", "recursive", "geometric")
PEAKED = 2 / 3
"""A law with one token above this is drawn from by the geometric method if the method is left open."""

LIPKIN = cited("lipkin2025", "tokens drawn by adaptive weighted rejection")


def draw(
    rng: Rng,
    log_prob: Tensor,
    test: Test,
    *,
    method: str = "auto",
    max_accepts: int = 2,
    max_rejects: int | None = None,
    max_refused: int | None = None,
    ids: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A valid token for each particle with a weight whose mean is the mass of all valid tokens.

    Let p be a row's law and V the valid tokens. The pair (x, w) that comes back has E[w 1{x}] = p(x) 1{x in V} for
    every token x, so that E[w] = p(V). Tokens are drawn and tested until one is valid; no invalid token is drawn twice.

    *Recursive*: let R be the mass of the tokens refused so far and c = p(x) / (1 - R) the chance of the token x drawn
    next. A refused x multiplies the weight by 1 - c. A valid x is the result; one more token y is then drawn among the
    others, and the weight is multiplied by 1 if y is valid and by c if not. Both cases together have the mean
    c + (1 - c) P(y valid) = p(V) / (1 - R), whatever x was.

    *Geometric*: draws with replacement until `max_accepts` = m of them were valid; the first valid one is the result.
    With a valid and r refused draws the weight is min(m - 1, a) / (a + r - 1), which has mean p(V) and does not depend
    on which valid token came first (inverse binomial sampling). Draws of what is already refused are not made but
    counted: their number is geometric.

    With `max_rejects` or `max_refused` the search gives up, and w = 0 if nothing valid was found. The geometric weight
    allows for it with a and r as they are then: when it stops depends on a and on the refused draws in their order, of
    which all arrangements with the valid ones are as likely, the last draw aside. The recursive method draws no second
    token where only one refusal is left: it takes what is valid there with its weight unchanged. Both keep the means.

    Args:
        rng: an address of the particles.
        log_prob: (M, V) float64, their laws; a mass other than one goes into the weight.
        test: maps places (m,) among the M and tokens (m,) to whether they are valid, (m,) bool.
        method: "recursive", "geometric", or "auto": geometric where one token has more than 2/3 of the mass, or if
            `max_accepts` is above 2.
        max_accepts: valid draws of the geometric method, at least 2. More cost more tests and vary less.
        max_rejects: the most refused draws of a particle; None has no limit, so that w = 0 says that no token is valid.
        max_refused: the most different tokens that are refused, which is what the tests cost; None has no limit.
        ids: (M,) int64, the numbers of the particles; None: 0..M-1.

    Returns:
        token (M,) int64, -1 in a dead end; log_weight (M,) float64 nats, -inf in a dead end; calls (M,) int64, how many
        tests each particle asked for.

    Raises:
        MotesError: an argument outside its range.
        ShapeError: `test` returns something else.

    References:
        Lipkin et al. (2025), COLM, arXiv 2504.05410; Girshick, Mosteller & Savage (1946), Annals of Mathematical
        Statistics 17(1), for the geometric weight.

    Example:
        >>> p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log().expand(20000, 3)
        >>> token, log_weight, calls = draw(Rng(0), p, lambda row, token: token != 0)
        >>> abs(float(log_weight.exp().mean()) - 0.5) < 0.01
        True
    """
    check_name("method of rejection", method, METHODS)
    limits = [("max_rejects", max_rejects), ("max_refused", max_refused)]
    checked = [(name, value, 1) for name, value in limits if value is not None]
    for name, value, least in [("max_accepts", max_accepts, 2), *checked]:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            may = "" if name == "max_accepts" else "None or "
            raise MotesError(f"{name} must be {may}a whole number of at least {least}, not {value!r}")
    if log_prob.ndim != 2 or log_prob.dtype != torch.float64:
        raise ShapeError(f"log_prob must be (M, V) float64, not {tuple(log_prob.shape)} {log_prob.dtype}")
    m = len(log_prob)
    ids = torch.arange(m) if ids is None else ids
    token = torch.full((m,), -1, dtype=torch.int64)
    log_weight = torch.full((m,), -torch.inf, dtype=torch.float64)
    calls = torch.zeros(m, dtype=torch.int64)
    mass = torch.logsumexp(log_prob, -1)
    alive = ~torch.isneginf(mass)
    peaked = (log_prob.amax(-1) - mass).exp() >= PEAKED
    geometric = torch.full((m,), method == "geometric" or (method == "auto" and max_accepts > 2))
    if method == "auto":
        geometric |= peaked
    search = _Search(rng, test, calls, max_accepts, max_rejects, max_refused)
    for way, rows in ((_recursive, alive & ~geometric), (_geometric, alive & geometric)):
        for part in torch.nonzero(rows)[:, 0].split(max(1, 2**24 // log_prob.shape[1])):
            if len(part):
                token[part], log_weight[part] = way(search, log_prob[part], mass[part], part, ids[part])
    return token, torch.where(token < 0, -torch.inf, log_weight + mass), calls


@dataclass(frozen=True)
class _Search:
    """What both methods draw and test with: `calls` counts the tests of each particle, `most` are limits of `draw`."""

    rng: Rng
    test: Test
    calls: Tensor
    most_accepted: int
    most_rejected: int | None
    most_refused: int | None

    def draw(self, purpose: str, log_prob: Tensor, ids: Tensor) -> Tensor:
        """A token of each row; the purpose has its number, since `inner` belongs to the caller."""
        return self.rng.at(purpose).shard(ids).categorical(log_prob)

    def valid(self, place: Tensor, token: Tensor) -> Tensor:
        """What the test says, checked."""
        self.calls[place] += 1
        valid = self.test(place, token)
        if not isinstance(valid, Tensor) or valid.shape != token.shape or valid.dtype != torch.bool:
            raise ShapeError(f"the test of {len(token)} tokens must return ({len(token)},) bool, not {valid!r}")
        return valid


def _recursive(search: _Search, log_prob: Tensor, total: Tensor, place: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens and log-weights (m,) of the recursive method, but for the mass of the law."""
    left = log_prob.clone()
    m = len(left)
    token = torch.full((m,), -1, dtype=torch.int64)
    weight = torch.zeros(m, dtype=torch.float64)
    refused = torch.zeros(m, dtype=torch.int64)
    chance = torch.zeros(m, dtype=torch.float64)
    """c of the valid token, for those that have one and look for a second."""
    remaining = total.clone()
    """log of the mass in `left`."""
    open_ = torch.arange(m)
    drawn = 0
    limits = (search.most_rejected, search.most_refused)
    limit = min((k for k in limits if k is not None), default=m * left.shape[1] + 1)
    while len(open_):
        rest = remaining[open_]
        empty = torch.isneginf(rest)
        # nothing is left: without a valid token a dead end, with one c = 1 and the weight stands
        open_, rest = open_[~empty], rest[~empty]
        if not len(open_):
            break
        x = search.draw(f"draw-{drawn}", left[open_], ids[open_])
        drawn += 1
        valid = search.valid(place[open_], x)
        c = left[open_, x] - rest
        left[open_, x] = -torch.inf
        # 1 - c as the share of what is left, without cancellation
        remaining[open_] = torch.logsumexp(left[open_], -1)
        without = remaining[open_] - rest
        second = token[open_] >= 0
        last = refused[open_] + 1 == limit  # no token is refused twice
        done = second | (valid & last) | (~valid & last)
        weight[open_] += torch.where(second, torch.where(valid, 0.0, chance[open_]), torch.where(valid, 0.0, without))
        first = ~second & valid
        token[open_[first]], chance[open_[first]] = x[first], c[first]
        refused[open_] += (~valid).long()
        open_ = open_[~done]
    return token, weight


def _geometric(search: _Search, log_prob: Tensor, total: Tensor, place: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens and log-weights (m,) of the geometric method, but for the mass of the law."""
    left = log_prob.clone()
    remaining = total.clone()
    """log of the mass in `left`."""
    m = len(left)
    token = torch.full((m,), -1, dtype=torch.int64)
    accepts = search.most_accepted
    known = torch.full((m, accepts), -1, dtype=torch.int64)
    accepted, refused, distinct = torch.zeros(3, m, dtype=torch.float64)
    most, widest = (torch.inf if k is None else float(k) for k in (search.most_rejected, search.most_refused))
    lost = torch.full((m,), -torch.inf, dtype=torch.float64)
    """log of the mass refused so far, as a share."""
    open_ = torch.arange(m)
    drawn = 0
    while len(open_):
        left_mass = remaining[open_] - total[open_]
        open_, left_mass = open_[~torch.isneginf(left_mass)], left_mass[~torch.isneginf(left_mass)]
        if not len(open_):
            break
        # P(k phantom refusals) = R^k (1 - R): k = floor(log u / log R); log R from 1 - R keeps its digits near 1
        log_r = torch.where(left_mass > -0.7, lost[open_].clamp_max(-0.0), torch.log1p(-left_mass.exp()))
        u = search.rng.at(f"phantom-{drawn}").shard(ids[open_]).uniform((len(open_),))
        phantom = torch.where(torch.isneginf(log_r), 0.0, torch.floor(u.log() / log_r))
        refused[open_] = (refused[open_] + phantom).clamp_max(most)
        open_ = open_[refused[open_] < most]
        if not len(open_):
            break
        x = search.draw(f"draw-{drawn}", left[open_], ids[open_])
        drawn += 1
        valid = (known[open_] == x[:, None]).any(1)
        new = ~valid
        if new.any():
            valid[new] = search.valid(place[open_[new]], x[new])
        good, bad = open_[valid], open_[~valid]
        token[good] = torch.where(token[good] < 0, x[valid], token[good])
        known[good, accepted[good].long()] = x[valid]
        accepted[good] += 1
        refused[bad] += 1
        distinct[bad] += 1
        lost[bad] = torch.logaddexp(lost[bad], left[bad, x[~valid]] - total[bad])
        left[bad, x[~valid]] = -torch.inf
        remaining[bad] = torch.logsumexp(left[bad], -1)
        open_ = open_[(accepted[open_] < accepts) & (refused[open_] < most) & (distinct[open_] < widest)]
    # a + r = 1 only where the one draw was refused and none other allowed: the share is zero then
    share = torch.minimum(torch.tensor(accepts - 1.0), accepted) / (accepted + refused - 1).clamp_min(1.0)
    return token, share.log()
