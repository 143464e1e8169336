"""How much the log evidence varies, by the spread between families of chains: what autocovariances are checked by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.variance import StandardError

DEPTH, MANY = 8, 8.0
"""Steps over which families are followed at most, and the effective number of them that they are followed down to."""
APART = 4.0
"""The ratio of variances at which the spread between families and the autocovariances of the chains disagree.

On the mean and deviation of 30 numbers by random walks, intervals of the larger of the two covered 95 % of 24 runs and
of the latter alone 87 %; the largest ratio there was 3.2."""


@dataclass(frozen=True)
class Families:
    """The variance of the log evidence so far, from how much families of chains differ in what they are reweighted by.

    Chains that descend from one chain of an earlier step are a family, S_r its share in the weight. Reweighting makes
    1 - sum_r S_r^2 smaller by a factor; minus the logarithms of these factors add up to the variance, with whatever
    chains remember of where they came from (see `motes.core.estimate.variance`). Families are followed over `DEPTH`
    steps, or less where they have become fewer than `MANY`.

    Attributes:
        lineage: (N, k) int64, the chain that each particle comes from, k steps ago to now.
        variance: nats^2.
        width: sum of the steps' variances, each times the sum_r S_r^2 after it.
    """

    lineage: Tensor
    variance: float
    width: float

    @classmethod
    def start(cls, variance: float, n: int) -> Families:
        """N independent draws, each its own family, whose reweighting has that variance."""
        return cls(torch.arange(n)[:, None], variance, variance / n)

    def grown(self, parent: Tensor, log_gain: Tensor, length: int) -> Families:
        """After a step: chains of `length` states that began at `parent` (N,) were reweighted by `log_gain` (N,)."""
        n, lineage = len(parent), self.lineage[parent]
        chain = torch.arange(n) // length
        lineage = torch.cat([lineage, chain[:, None]], 1)[:, -DEPTH - 1 :]
        weight = torch.softmax(log_gain, 0)
        slot, before = chain, 1.0
        for slot in lineage.unbind(1):
            before = float(torch.bincount(slot).double().div(n).square().sum())
            if before * MANY <= 1:
                break  # the oldest of which there are enough; else the last, the chains themselves
        after = float(torch.bincount(slot, weights=weight).square().sum())
        grew = math.log1p(-before) - math.log1p(-after) if before < 1 and after < 1 else math.inf
        return Families(lineage, self.variance + grew, self.width + grew * after)

    def apart(self, variance: float) -> float:
        """How much larger this variance is than one found otherwise, as a part of where the two disagree."""
        return self.variance / (APART * variance) if variance > 0 else math.inf if self.variance > 0 else 0.0

    def checked(self, variance: float, method: str) -> StandardError:
        """The larger of a `variance` found otherwise and of this one; none where they disagree."""
        own = self.variance
        if not self.apart(variance) <= 1:
            reason = (
                f"the spread between families of chains says {math.sqrt(own):.2g} and the autocovariances along chains "
                f"{math.sqrt(variance):.2g}: chains remember their start too long. Give a larger `length` or more "
                "particles, or a kernel that mixes better"
            )
            return StandardError(math.nan, method, reason)
        if own <= variance:
            return StandardError(math.sqrt(variance), method)
        many = self.variance / self.width if self.width > 0 else math.inf
        return StandardError(math.sqrt(own), "spread between families of chains", freedom=max(1.0, many - 1))

    def state(self) -> dict[str, Any]:
        """Everything, for `Particles.shared`."""
        return {"lineage": self.lineage, "variance": self.variance, "width": self.width}
