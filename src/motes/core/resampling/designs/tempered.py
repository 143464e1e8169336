"""Tempered resampling: by a power of the weights, the rest of which stays on the particles."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from motes.core.resampling._scheme import Scheme
from motes.core.weights import log_mean_exp
from motes.errors import MotesError, UnknownName
from motes.rng import Rng

Anneal = Callable[[float, float], float]
"""Maps (ESS / N, progress in [0, 1]) to the T >= 1 whose power 1/T of the weights is resampled by."""


def tempered(
    rng: Rng, scheme: Scheme, log_weight: Tensor, temperature: float, *, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Parents by the weights to the power 1/T, and the log-weights that their children keep.

    A child keeps w^(1 - 1/T) times the mean of w^(1/T), so that the population is as properly weighted as before: early
    opinions about what is unfinished choose less, and count in full in the end.

    Args:
        rng: where the random numbers come from.
        scheme: draws the parents.
        log_weight: (N,) float64, nats, not normalised.
        temperature: T, at least 1; 1 is plain resampling.
        order: (N,) for a sorted scheme.

    Returns:
        (N,) int64 parents, and (N,) float64 nats.

    Raises:
        MotesError: T is below 1.
    """
    if not temperature >= 1:
        raise MotesError(f"weights can only be tempered by a T of at least 1, not {temperature!r}")
    power = log_weight / temperature
    index = scheme(rng, power, order=order)
    return index, (log_weight - power)[index] + log_mean_exp(power)


def by_ess(ess: float, progress: float) -> float:
    """T = max(1, (1 - progress) / ess) while less than half is written and ess is below one half, else 1.

    After resampling by w^(1/T) a particle keeps the weight w^(1 - 1/T), which makes the population as properly weighted
    as before (published particle filters drop that factor, and with it their target).

    References:
        Puri, Sudalairaj, Xu, Xu & Srivastava (2025), A probabilistic inference approach to inference-time scaling of
        LLMs using particle-based Monte Carlo methods, arXiv 2502.01618, and its later entropic annealing.
    """
    return max(1.0, (1 - progress) / ess) if ess < 0.5 and progress < 0.5 else 1.0


def by_progress(ess: float, progress: float) -> float:
    """T = 2 - progress, whatever the weights."""
    return 2.0 - min(1.0, progress)


WAYS: dict[str, Anneal] = {"ess": by_ess, "progress": by_progress}


def choose(anneal: str | Anneal | None) -> Anneal | None:
    """The schedule of that name, or itself."""
    if anneal is None or callable(anneal):
        return anneal
    if anneal not in WAYS:
        raise UnknownName("schedule of annealing", anneal, WAYS)
    return WAYS[anneal]
