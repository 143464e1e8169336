"""What can be said about a vector of log-weights: sums, effective sample sizes, and whether it is legal.

Log-weights are float64 vectors (N,), in nats, not normalised; -inf is a weight of zero. Every function works relative
to the largest, so weights from exp(-1e300) to exp(1e300) neither overflow nor vanish together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.errors import AllWeightsZero, NanLogPotential, ShapeError, name_particles

PART = 4096
"""Rows in which long vectors are summed, so that the rounding does not depend on the number of threads."""


def total(x: Tensor) -> float:
    """The sum of a float64 vector, the same bits whatever the number of threads."""
    n = len(x)
    if n <= 2 * PART:  # torch sums so few in one thread
        return float(x.sum())
    whole = n - n % PART
    rows = x[:whole].view(-1, PART).sum(1)
    return total(torch.cat([rows, x[whole:].sum().view(1)]))


def scaled(log_weight: Tensor) -> tuple[Tensor, float]:
    """The weights relative to the largest, in [0, 1], and the largest log-weight; zeros if all weights are zero."""
    top = float(log_weight.max())
    if top == -math.inf:
        return torch.zeros_like(log_weight), top
    return torch.sub(log_weight, top).exp_(), top


def log_mean_exp(log_weight: Tensor) -> float:
    """log((1/N) sum_i exp(log_weight_i)), nats; -inf if all weights are zero, NaN if one is."""
    w, top = scaled(log_weight)
    return top if top == -math.inf else top + math.log(total(w)) - math.log(len(w))


def ess(log_weight: Tensor) -> float:
    """The effective sample size (sum w)^2 / sum w^2, from 1 to N; 0 if all weights are zero.

    References:
        Kong, Liu & Wong (1994), Sequential imputations and Bayesian missing data problems, JASA 89.
    """
    w, top = scaled(log_weight)
    return 0.0 if top == -math.inf else total(w) ** 2 / total(w.square())


def conditional_ess(log_weight: Tensor, log_increment: Tensor) -> float:
    """How many of N particles are as good after a reweighting as before it: N (sum W g)^2 / sum W g^2.

    Here W are the normalised weights and g = exp(log_increment). It is N for a constant increment, whatever the
    weights are, and 0 if nothing is left.

    Args:
        log_weight: (N,) the weights before, nats.
        log_increment: (N,) what is added to them, nats.

    References:
        Zhou, Johansen & Aston (2016), Toward automatic model comparison: an adaptive SMC approach, eq. 9, JCGS 25.
    """
    w = scaled(log_weight)[0]
    g = scaled(torch.where(w > 0, log_increment, -math.inf))[0]
    wg = w * g
    if total(wg) == 0.0:
        return 0.0
    return len(w) * total(wg) ** 2 / (total(w) * total(wg * g))


def normalise(log_weight: Tensor) -> Tensor:
    """(N,) float64 weights that sum to 1.

    Raises:
        AllWeightsZero: there is nothing to normalise.
        NanLogPotential: a log-weight is NaN or +inf.
    """
    w, top = scaled(log_weight)
    if not math.isfinite(top):
        check_log_weight(log_weight, None, "normalise")
        raise AllWeightsZero(f"all {len(w)} weights are zero, so they cannot be normalised")
    return w.div_(total(w))


def entropy(log_weight: Tensor) -> float:
    """The entropy -sum W log W of the normalised weights, nats, from 0 to log N; NaN if all weights are zero."""
    w, top = scaled(log_weight)
    if top == -math.inf:
        return math.nan
    s = total(w)
    return max(0.0, math.log(s) - total(torch.special.xlogy(w, w)) / s)


def max_weight(log_weight: Tensor) -> float:
    """The largest normalised weight; NaN if all weights are zero."""
    w, top = scaled(log_weight)
    return math.nan if top == -math.inf else 1.0 / total(w)


def summary(log_weight: Tensor) -> dict[str, float]:
    """`log_evidence`, `ess`, `entropy` and `max_weight` of one vector of log-weights, from one pass of exponentials."""
    w, top = scaled(log_weight)
    if top == -math.inf:
        return {"log_evidence": top, "ess": 0.0, "entropy": math.nan, "max_weight": math.nan}
    s = total(w)
    return {
        "log_evidence": top + math.log(s) - math.log(len(w)),
        "ess": s**2 / total(w.square()),
        "entropy": max(0.0, math.log(s) - total(torch.special.xlogy(w, w)) / s),
        "max_weight": 1.0 / s,
    }


def check_log_weight(log_weight: Tensor, t: int | None, what: str) -> None:
    """A vector of log-weights is float64 and holds neither NaN nor +inf.

    Args:
        log_weight: (N,) nats.
        t: the step, for the message; None if there is none.
        what: who made the weights, for the message.

    Raises:
        NanLogPotential: one is NaN or +inf; the message names the particles and the step.
        ShapeError: it is no float64 vector, or is empty.
    """
    if log_weight.ndim != 1 or log_weight.dtype != torch.float64 or len(log_weight) == 0:
        raise ShapeError(
            f"{what}: log-weights must be a float64 tensor of shape (N,) with N >= 1, "
            f"not {tuple(log_weight.shape)} {log_weight.dtype}"
        )
    if float(log_weight.max()) < math.inf:  # the largest is NaN if any is
        return
    at = "" if t is None else f" at t={t}"
    for name, bad in (("NaN", torch.isnan(log_weight)), ("+inf", torch.isposinf(log_weight))):
        index = bad.nonzero().flatten().tolist()
        if index:
            raise NanLogPotential(
                f"{what}: the log-weight is {name} for {name_particles(index)}{at}. A particle that cannot be must get "
                "-inf; look for log of a negative number, 0 * inf, inf - inf or an overflow in the log-potential"
            )
