"""Several independent drafts of one token at the largest rate that any scheme can reach."""

from __future__ import annotations

import heapq
from itertools import pairwise

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.speculation.recursive import residual
from motes.rng import Rng


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


def select(rng: Rng, p: Tensor, q: Tensor, drafts: Tensor) -> tuple[Tensor, Tensor]:
    """A token of the law p, which is one of the drafts with probability `rate`; as `recursive.select`.

    One draft is picked so that it has the law s of `picked`, and accepted with min(1, p / s); otherwise [p - s]_+
    normalised is drawn from. The pick: tokens stand in the order of p / q, a uniform number u cuts this order into
    blocks (`cuts`), and the first draft that lies in the highest block with any is taken. Exact, and at the optimum
    for any vocabulary and any k, in O(V log V) for each row; the rows are gone through one by one, in Python.

    References:
        Khisti et al. (2025), theorem 1, for a pick followed by the acceptance of a single draft. The pick itself is
        derived here: let C(x) be the mass under s of the tokens that begin the order and have x under q. It is convex
        and nowhere below x^k at the ends of tokens. The extreme points of such functions are the polygons through some
        points of x^k, which is the law of the highest block if it is cut at these points, so C is a mixture of them.
    """
    k = drafts.shape[1]
    if k < 1:
        raise MotesError("select needs at least one draft a row")
    s = picked(p, q, k)
    ratio = torch.where(q > 0, s / q.clamp(min=1e-300), torch.inf)
    u = rng.at("pick").uniform((len(p),))
    block = torch.zeros_like(drafts)
    for i in range(len(p)) if k > 1 else ():
        order, end = cuts(ratio[i], q[i], k)
        number = torch.zeros(p.shape[1], dtype=torch.int64)
        number[order[1:]] = (end > u[i]).cumsum(0)
        block[i] = number[drafts[i]]
    which = block.argmax(1)  # the first of the highest
    token = drafts.gather(1, which[:, None])
    chance = (p.gather(1, token) / s.gather(1, token))[:, 0].clamp(max=1)
    taken = rng.at("accept").bernoulli(chance)
    rest = rng.at("rest").categorical(residual(p, s).log())
    return torch.where(taken, token[:, 0], rest), torch.where(taken, which, -1)


def picked(p: Tensor, q: Tensor, k: int) -> Tensor:
    """The law s (..., V) of one of k drafts with sum min(p, s) = `rate`: s = q min(max(p / q, low), high).

    With H the set of the least p / q at which P(H) - Q(H)^k is least, low and high give s the mass Q(H)^k on H and the
    rest outside; so s >= p on H and s <= p elsewhere.
    """
    ratio = torch.where(q > 0, p / q.clamp(min=1e-300), torch.inf)
    order = torch.argsort(ratio, dim=-1, stable=True)
    start = torch.zeros_like(p[..., :1])
    inside = torch.where(q > 0, p, 0.0).gather(-1, order), q.gather(-1, order)
    P, Q = (torch.cat([start, law.cumsum(-1)], -1) for law in inside)
    over_p, over_q = (torch.cat([law.flip(-1).cumsum(-1).flip(-1), start], -1) for law in inside)
    # (V + 1) sets: the least 0, 1, ... tokens; the tokens with q = 0 stay outside of them
    least = (P - Q**k).argmin(-1, keepdim=True)
    lacks = (Q**k - P).gather(-1, least).clamp(min=0)
    excess = (lacks - torch.where(q > 0, 0.0, p).sum(-1, keepdim=True)).clamp(min=0)
    # the least of sum_H max(p, low q) = P(H) + lacks is that of the lines P - P_j + low Q_j, and outside likewise
    at = torch.arange(P.shape[-1])
    low = torch.where((at <= least) & (Q > 0), (P + lacks) / Q.clamp(min=1e-300), torch.inf).amin(-1, keepdim=True)
    low = torch.where(least > 0, low, 0.0)
    above = (at >= least) & (over_q > 0)
    high = torch.where(above, (over_p - excess) / over_q.clamp(min=1e-300), -torch.inf).amax(-1, keepdim=True)
    high = torch.where(above.any(-1, keepdim=True), high, torch.inf)
    s = torch.where(q > 0, q * torch.maximum(torch.minimum(ratio, high), low), 0.0)
    return s / s.sum(-1, keepdim=True)


def cuts(ratio: Tensor, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The tokens (M,) with q > 0 in the order of ratio = s / q, and until when it is cut behind each, (M - 1,).

    At u = 0 every change of slope of C is a cut. While u grows, the polygon through x^k at the remaining cuts is taken
    off C; where its change of slope has used up that of C, the cut ends, and its neighbours' polygon changes.
    """
    order = torch.argsort(ratio, stable=True)[: int((q > 0).sum())]
    bend = ratio[order].diff()
    Q = [0.0, *q[order].cumsum(0).tolist()[:-1], 1.0]
    places = [0, *(torch.nonzero(bend > 0)[:, 0] + 1).tolist(), len(order)]
    before = dict(zip(places[1:], places[:-1], strict=True))
    after = dict(pairwise(places))
    left = dict(zip(places[1:-1], bend[bend > 0].tolist(), strict=True))
    since = dict.fromkeys(left, 0.0)

    def slope(a: int, b: int) -> float:
        return sum(Q[a] ** j * Q[b] ** (k - 1 - j) for j in range(k))

    def speed(i: int) -> float:
        return max(slope(i, after[i]) - slope(before[i], i), 0.0)

    speeds = {i: speed(i) for i in left}

    def until(i: int) -> float:
        return since[i] + left[i] / speeds[i] if speeds[i] > 0 else float("inf")

    queue = [(until(i), i) for i in left]
    heapq.heapify(queue)
    end = torch.zeros(max(len(order) - 1, 0), dtype=torch.float64)
    while queue:
        now, i = heapq.heappop(queue)
        if i not in left or now != until(i):  # its neighbours have changed since
            continue
        end[i - 1] = now
        del left[i]
        a, b = before[i], after[i]
        after[a], before[b] = b, a
        for j in (a, b):
            if j in left:
                left[j] = max(left[j] - (now - since[j]) * speeds[j], 0.0)
                since[j], speeds[j] = now, speed(j)
                heapq.heappush(queue, (until(j), j))
    return order, end
