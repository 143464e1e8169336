"""Whether a population has the law that it stands for: sweeps that leave a law invariant must not move its means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from motes.core.remark import ALL, EVIDENCE, Remark
from motes.kernels.kernel import State, Target

FALSE_ALARM = 0.002
"""The probability of an alarm where the population has its law, over all means that are looked at."""
CERTAIN = 4.7
"""Standard errors beyond which a drift at one of many moves is no chance."""
FEWEST = 64
"""With fewer families than this nothing is concluded from a drift."""


@dataclass(frozen=True)
class MeanDrift:
    """How far the means of a population moved under sweeps of a kernel that leaves its law invariant.

    Attributes:
        score: (m,) the mean changes, in standard errors.
        shift: (m,) the same in standard deviations of what is averaged.
    """

    score: Tensor
    shift: Tensor

    @property
    def largest(self) -> float:
        """The largest mean change in standard errors."""
        return float(self.score.abs().max())

    @property
    def limit(self) -> float:
        """What `largest` exceeds with probability `FALSE_ALARM` at most, if the population has its law."""
        return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * len(self.score)))

    @property
    def detected(self) -> bool:
        """Whether the means move by more than chance allows."""
        return self.largest > self.limit


def watched(target: Target, state: State, middle: Tensor | None = None) -> Tensor:
    """(N, 2 d + 1) float64 what is averaged: coordinates, their distances from the `middle` (d,), the log-density."""
    x = state["position"].to(torch.float64)
    middle = median(state) if middle is None else middle
    log_density = target.log_density(state)[:, None]
    return torch.cat([x, (x - middle).abs(), torch.where(log_density > -math.inf, log_density, 0.0)], 1)


def median(state: State) -> Tensor:
    """(d,) float64 the medians of the coordinates."""
    return state["position"].to(torch.float64).median(0).values


def drift(before: Tensor, after: Tensor, weight: Tensor, family: Tensor) -> MeanDrift:
    """The drift of weighted means from `before` to `after` (N, m).

    Args:
        weight: (N,) normalised.
        family: (N,) int64 below N; particles that were copies of one another have the same number, since what moves
            one of them is likely to move all.
    """
    alive = weight > 0
    change = torch.where(alive[:, None], after - before, 0.0)
    mean = weight @ change
    off = weight[:, None] * (change - mean)
    each = torch.zeros_like(off).index_add_(0, family, off)
    error = each.square().sum(0).sqrt()
    spread = (weight @ (before - weight @ before).square()).sqrt()
    return MeanDrift(_ratio(mean, error), _ratio(mean, spread))


def drift_between(target: Target, before: State, after: State, weight: Tensor, family: Tensor) -> MeanDrift:
    """The drift of what is `watched` from one state of a population (N,) to another, see `drift`."""
    middle = median(before)
    return drift(watched(target, before, middle), watched(target, after, middle), weight, family)


def effective_families(ancestor: Tensor, weight: Tensor) -> float:
    """The effective number of different parents (N,) of the particles with normalised weights (N,)."""
    share = torch.zeros_like(weight).index_add_(0, ancestor, weight)
    return 1 / float(share.square().sum())


def lagged(where: str, behind: str, advice: str, *, kept: bool = False) -> Remark:
    """What the user must be told where means drifted to the end of moves that were followed by a change of the law.

    Args:
        kept: whether the particles that had drifted still count in the means.
    """
    what = (
        "the log evidence and the means may be off by more than their errors"
        if kept
        else "the log evidence may be off by more than its error"
    )
    said = f"the particles did not keep up with {behind}: {where} their means drifted to the end, so {what}. {advice}"
    return Remark(said, ALL if kept else EVIDENCE, withholds=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / b.clamp(min=1e-300), 0.0).nan_to_num()
