"""What draws are worth, by one external estimator for all runners, and how far they are from the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats
from tests.posteriors import REFERENCED, data, posterior

AGREED = 1.05
"""The largest rank R-hat with which draws count."""
FURTHEST = 0.25
"""The largest error of a first or second moment, in the reference's standard deviations, with which draws count."""


@dataclass(frozen=True)
class Score:
    """Of the worst coordinate: effective sample size in bulk and tail (5 % and 95 % quantiles), and R-hat.

    Attributes:
        error: the largest error of a mean or a mean square of the reference's parameters, in the reference's standard
            deviations of the parameter or its square; NaN without a reference.
        dead: coordinates that never moved, or why the draws do not count, empty if they do.
    """

    bulk: float
    tail: float
    rhat: float
    error: float
    dead: str

    @property
    def ess(self) -> float:
        """The smaller of both, and zero where the draws do not count."""
        return 0.0 if self.dead else min(self.bulk, self.tail)


def score(name: str, draws: np.ndarray) -> Score:
    """Of draws (chains, draws, d) in unconstrained coordinates; a single chain is cut in two for R-hat by ArviZ."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    bulk = float(np.nanmin(array_stats.ess(draws, method="bulk", **axes)))
    tail = float(np.nanmin(array_stats.ess(draws, method="tail", prob=(0.05, 0.95), **axes)))
    rhat = float(np.nanmax(array_stats.rhat(draws, method="rank", **axes)))
    error, dead = furthest(name, draws) if name in REFERENCED else np.nan, ""
    if (draws.reshape(-1, draws.shape[-1]).std(0) == 0).any():
        dead = "a coordinate never moves"
    elif not rhat <= AGREED:
        dead = f"R-hat {rhat:.2f}"
    elif error > FURTHEST:
        dead = f"a moment is off by {error:.2f} sd"
    return Score(bulk, tail, rhat, error, dead)


def furthest(name: str, draws: np.ndarray) -> float:
    """The largest error of a first or second moment against the reference draws."""
    import torch

    p, reference = posterior(name), data.reference(name)
    values = p.outward(p.density().constrain(torch.from_numpy(draws.reshape(-1, draws.shape[-1]))))
    worst = 0.0
    for key, truth in reference.items():
        mine = values[key].numpy()
        for a, b in ((mine, truth), (np.square(mine), np.square(truth))):
            worst = max(worst, abs(a.mean() - b.mean()) / b.std())
    return float(worst)
