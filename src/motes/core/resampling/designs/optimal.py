"""Some of many weighted things kept, each at most once, so that their weights stay right."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.errors import MotesError, ShapeError
from motes.rng import Rng

FEARNHEAD = cited("fearnhead2003", "the optimal reduction of weighted candidates")


def thin(rng: Rng, log_weight: Tensor, n: int, *, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Keeps n of the C candidates of each row, with inclusion probabilities q = min(1, c w) that add up to n.

    A kept candidate weighs w / q from then on: heavy ones keep their weight, the others get 1/c, and the mean of the
    new weight, which is zero for what is dropped, is w. Among all ways to keep n that have this mean it is the one with
    the least sum of variances. The light ones are chosen systematically, by one uniform number a row and equally spaced
    points on their running sum: none can be chosen twice since each is shorter than the spacing, and the sum of the
    weights does not change.

    Args:
        rng: an address of the rows.
        log_weight: (M, C) float64, nats, up to a constant a row; -inf: no candidate.
        n: how many to keep; rows that have no more keep them all, with q = 1.
        ids: (M,) int64, the numbers of the rows; None: 0..M-1.

    Returns:
        kept (M, C) bool; log q (M, C) float64, of all candidates.

    Raises:
        MotesError: n is not a whole number of at least 1.
        ShapeError: log_weight is something else.

    References:
        Fearnhead & Clifford (2003), J. R. Statist. Soc. B 65(4), section 3 and theorem 1.

    Example:
        >>> w = torch.tensor([[0.7, 0.1, 0.1, 0.06, 0.04]], dtype=torch.float64)
        >>> kept, log_q = thin(Rng(0), w.log(), 3)
        >>> [round(q, 3) for q in log_q.exp()[0].tolist()], int(kept.sum())
        ([1.0, 0.667, 0.667, 0.4, 0.267], 3)
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise MotesError(f"how many to keep must be a whole number of at least 1, not {n!r}")
    if log_weight.ndim != 2 or log_weight.dtype != torch.float64:
        raise ShapeError(f"log_weight must be (M, C) float64, not {tuple(log_weight.shape)} {log_weight.dtype}")
    there = ~torch.isneginf(log_weight)
    log_q = torch.zeros_like(log_weight)
    many = torch.nonzero(there.sum(1) > n)[:, 0]
    if not len(many):
        return there, log_q
    w = log_weight[many]
    top = torch.topk(w, n, dim=1)
    tail = torch.logsumexp(w.scatter(1, top.indices, -torch.inf), 1, keepdim=True)
    # left[a] is what remains if the a heaviest are kept for sure; the n - a others then share c = (n - a) / left[a]
    left = torch.logcumsumexp(torch.cat([tail, top.values.flip(1)], 1), 1).flip(1)[:, :n]
    log_c = torch.arange(n, 0, -1, dtype=torch.float64).log() - left
    light = log_c + top.values < 0
    sure = torch.where(light.any(1), light.int().argmax(1), n - 1)[:, None]
    q = (w + log_c.gather(1, sure)).clamp(max=0.0)
    heavy = torch.zeros_like(w, dtype=torch.bool).scatter(1, top.indices, torch.arange(n).expand(len(w), n) < sure)
    q = q.masked_fill(heavy, 0.0)
    running = torch.cumsum(q.exp().masked_fill(heavy, 0.0), 1)
    running = running * ((n - sure) / running[:, -1:])
    u = rng.shard(torch.arange(len(log_weight))[many] if ids is None else ids[many]).uniform((len(many),))
    last = running == running[:, -1:]  # the sum is n - sure but for rounding, and that many points lie before it
    points = torch.minimum(torch.floor(running - u[:, None]).masked_fill(last, torch.inf), n - 1.0 - sure)
    before = torch.nn.functional.pad(points[:, :-1], (1, 0), value=-1.0)
    kept = there.clone()
    kept[many] = heavy | (points > before)
    log_q[many] = q
    return kept, log_q
