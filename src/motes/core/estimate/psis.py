"""Pareto smoothing of importance weights, with the diagnostic k-hat: ArviZ does it, this says what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motes.core.weights import check_log_weight, ess
from motes.errors import MotesError, needing

INSTALL = "Pareto smoothing needs arviz-stats: pip install 'motes[arviz]'"
FEWEST = 25
"""With fewer positive weights the fifth that is taken for the tail holds fewer than five."""


@dataclass(frozen=True)
class Smoothed:
    """Log-weights with a smoothed tail.

    Attributes:
        log_weight: (N,) float64 nats, not normalised, on the scale of the raw ones.
        k_hat: the shape of the Pareto tail; NaN with too few weights to tell, or where hardly any but the largest
            count; -inf where the tail is flat.
        reliable: whether means under these weights can be trusted.
        advice: what to make of it, in words.
    """

    log_weight: Tensor
    k_hat: float
    reliable: bool
    advice: str


def smooth(log_weight: Tensor) -> Smoothed:
    """Replace the largest weights by quantiles of a generalised Pareto law fitted to them, cut at the largest.

    That trades a little bias for much variance; sums of weights are no longer unbiased. The fit, and how many weights
    count as the tail, are those of ArviZ (Zhang & Stephens 2009). Means are reliable where k-hat is below
    min(1 - 1/log10(N), 0.7), N the number of positive weights.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72), section 3.
        Zhang & Stephens (2009), A new and efficient estimation method for the generalized Pareto distribution,
        Technometrics 51(3).

    Args:
        log_weight: (N,) float64 nats.

    Raises:
        ImportError: arviz-stats is not installed.
        MotesError: all weights are zero.
    """
    with needing(INSTALL):
        from arviz_stats.base.array import array_stats
    check_log_weight(log_weight, None, "smooth")
    positive = log_weight > -math.inf
    raw = log_weight[positive]
    n = len(raw)
    if n == 0:
        raise MotesError(f"all {len(log_weight)} weights are zero, so there is no tail to smooth")
    if n < FEWEST:
        say = f"{n} positive weights are too few to tell how heavy their tail is; there should be {FEWEST} at least"
        return Smoothed(log_weight, math.nan, False, say)
    try:
        with np.errstate(all="ignore"):
            found, k = array_stats.psislw(-raw.cpu().numpy())
    except ValueError:  # the largest are all the same
        return Smoothed(log_weight, -math.inf, True, "the largest weights are equal: nothing to smooth")
    if not (math.isfinite(k) and np.isfinite(found).all()):
        say = (
            f"the largest weights cannot be fitted: most of them are equal, or nothing beside the largest (the {n} "
            f"weights are worth {ess(log_weight):.1f} draws), so means cannot be trusted. Use a proposal closer to the "
            "target, or temper"
        )
        return Smoothed(log_weight, math.nan, False, say)
    k = float(k)
    smoothed = torch.as_tensor(found, dtype=torch.float64, device=raw.device)
    least = int(raw.argmin())  # belongs to no tail, so it tells what was divided by
    out = log_weight.clone()
    out[positive] = smoothed + (raw[least] - smoothed[least])
    limit = min(1 - 1 / math.log10(n), 0.7)
    return Smoothed(out, k, k < limit, _advice(k, limit, n))


def _advice(k: float, limit: float, n: int) -> str:
    if k < limit:
        return f"k-hat is {k:.2f}, below {limit:.2f}: means under the smoothed weights can be trusted"
    if k < 1:
        more = f"; about {10 ** (1 / (1 - k)):.0e} draws would do, not {n}" if k < 0.7 else ""
        return (
            f"k-hat is {k:.2f}, not below {limit:.2f}: the largest weights decide, and errors are larger than they "
            f"look{more}. Use a proposal closer to the target, or temper"
        )
    return (
        f"k-hat is {k:.2f}, at least 1: the weights may not even have a mean, so no number of draws helps. Use a "
        "proposal with heavier tails, or temper"
    )
