"""How sure nested sampling is of its evidence: families that differ in what they leave at each level, and ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.variance import FEW, StandardError
from motes.rng import Rng

FAMILIES = 12.0
"""An anchor is given up for a younger one when its families are fewer than this, in effective number."""
FORGOTTEN = 0.6
"""The younger anchor must see at least this part of the variance that the older one sees."""
MOST_RANKED = 256
"""Moved points of a step that are ranked."""


@dataclass(frozen=True)
class Shells:
    """What each level has added to the variance of the log evidence.

    At a level the N live points are cut into families r by their ancestor at an *anchor*, an earlier generation. Let
    F_r be a family's share of the points, A_r its share of the survivors, D_r its share in what the dead leave behind,
    p that amount and T all that comes after, as parts of Z. If clones forget, the families' points are independent
    draws, and

        sum_r (p D_r + T A_r)^2 - (p + T)^2 sum_r F_r^2,

    over 1 - sum_r F_r^2, is what this level adds to the variance of log Z; with families of one point it is
    T^2 K / (N (N - K)) for a thin shell, the variance of ideal moves. Points that remember make their families differ
    more, and the sum counts it as far back as the anchor. Two anchors are kept; the younger tells whether what is older
    than the older one has been forgotten.

    Attributes:
        slot: (2, N) int64, the families by the older and by the younger anchor.
        moved: how often an anchor was given up.
        log_left: (S,) float64, log p of each level, and of the live points at the end.
        sums: (S, 2, 4) float64, the sums of D_r^2, D_r A_r, A_r^2, F_r^2 for both anchors.
    """

    slot: Tensor
    moved: int
    log_left: Tensor
    sums: Tensor

    @classmethod
    def start(cls, n: int) -> Shells:
        """Every point its own family."""
        return cls(torch.arange(n).repeat(2, 1), 0, torch.zeros(0).double(), torch.zeros(0, 2, 4).double())

    def state(self) -> dict[str, Any]:
        """What `Particles.shared` holds of it."""
        return {"slot": self.slot, "moved": self.moved, "log_left": self.log_left, "sums": self.sums}

    def _with(self, alive: Tensor, weight: Tensor) -> Shells:
        """One more level: who survives (N,), and log-weights (K,) of the others."""
        n, left = len(alive), float(weight.logsumexp(0))
        dead = torch.zeros(n, dtype=torch.float64)
        if left > -math.inf:
            dead[~alive] = (weight - left).exp()
        live = alive.double() / max(1, int(alive.sum()))
        rows = []
        for slot in self.slot:
            d, a = (torch.bincount(slot, weights=w, minlength=n) for w in (dead, live))
            f = torch.bincount(slot, minlength=n).double() / n
            rows.append(torch.stack([d @ d, d @ a, a @ a, f @ f]))
        sums = torch.cat([self.sums, torch.stack(rows)[None]])
        return replace(self, log_left=torch.cat([self.log_left, torch.tensor([left]).double()]), sums=sums)

    def killed(self, likelihood: Tensor, alive: Tensor, weight: Tensor, index: Tensor) -> Shells:
        """After a level: who survived (N,), log-weights (K,) of the dead, and the parents (N,) of the next points."""
        new = self._with(alive, weight)
        slot, moved, now = self.slot[:, index], self.moved, torch.arange(len(alive))
        many = len(alive) ** 2 / float(torch.bincount(slot[0]).square().sum())
        if many < FAMILIES:
            slot, moved = torch.stack([slot[1], now]), moved + 1
        elif many < 2 * FAMILIES and torch.equal(slot[0], slot[1]):
            slot = torch.stack([slot[0], now])
        return replace(new, slot=slot, moved=moved)

    def ended(self, weight: Tensor) -> Shells:
        """After the last level: log-weights (N,) of the live points."""
        return self._with(torch.zeros(len(weight), dtype=torch.bool), weight)

    def variances(self) -> tuple[Tensor, Tensor]:
        """(S, 2) what each level adds to the variance of log Z, by both anchors, and sum_r F_r^2 there."""
        p = torch.softmax(self.log_left, 0)[:, None]
        after = p.flip(0).cumsum(0).flip(0) - p
        dd, da, aa, ff = self.sums.unbind(-1)
        added = p.square() * dd + 2 * p * after * da + after.square() * aa - (p + after).square() * ff
        return added / (1 - ff).clamp(min=1e-12), ff

    def standard_error(self) -> StandardError:
        """The standard error of log Z, nats, or why there is none."""
        method = "families at each level"
        if not len(self.log_left) or not math.isfinite(float(self.log_left.max())):
            return StandardError(math.nan, method, "no point has a positive likelihood")
        added, families = self.variances()
        older, younger = (float(v) for v in added.sum(0))
        width = float((added[:, 0] * families[:, 0]).sum() / older) if older > 0 else 0.0
        if width * FEW > 1:
            reason = f"the points descend from too few families, {1 / width:.1f} in effective number: use more points"
            return StandardError(math.nan, method, reason)
        if self.moved and younger < FORGOTTEN * older:
            reason = (
                "points remember longer than families can be followed: use more sweeps (a smaller `max_correlation`) "
                "or a kernel that mixes better, or take the spread over several runs"
            )
            return StandardError(math.nan, method, reason)
        return StandardError(math.sqrt(max(older, younger, 0.0)), method)


def ranks(rng: Rng, others: Tensor, moved: Tensor, bins: int) -> Tensor:
    """(bins,) counts of where moved points (K,) are inserted by their likelihood, one after another, among the others.

    The rank of the j-th among the others and the first j - 1 is uniform and independent of the ranks before, if all are
    independent draws from one law (ties are broken at random).

    References:
        Fowlie, Handley & Su (2020), Nested sampling cross-checks using order statistics, MNRAS 497(4), section 2.
    """
    k = min(len(moved), MOST_RANKED)
    # the first of the clones sit in the first places; any k of them will do
    moved = moved[rng.at("which").permutation(len(moved))[:k]]
    order = others.sort().values
    low, high = torch.searchsorted(order, moved), torch.searchsorted(order, moved, right=True)
    before = torch.ones(k, k, dtype=torch.bool).tril(-1)
    low = low + ((moved[None] < moved[:, None]) & before).sum(1)
    high = high + ((moved[None] <= moved[:, None]) & before).sum(1)
    u = rng.at("ties").uniform((k,))
    place = (low + u * (high - low + 1)) / (len(others) + torch.arange(k) + 1)
    return torch.bincount((place * bins).long().clamp(max=bins - 1), minlength=bins)


def unlikely(counts: Tensor) -> float:
    """The probability that uniform ranks differ from uniform at least as much as `counts` (bins,) of them do.

    By the largest distance of the distribution functions (Kolmogorov); binned ranks make it larger than it is.
    """
    n = int(counts.sum())
    if n == 0:
        return 1.0
    bins = len(counts)
    distance = float((counts.cumsum(0).double() / n - torch.arange(1, bins + 1) / bins).abs().max())
    y = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if y < 0.3:
        return 1.0
    return min(1.0, max(0.0, 2 * sum((-1) ** (j - 1) * math.exp(-2 * j * j * y * y) for j in range(1, 101))))
