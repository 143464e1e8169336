"""Tempered resampling: by a power of the weights, the rest of which stays on the particles."""

from __future__ import annotations

from torch import Tensor

from motes.core.resampling._scheme import Scheme
from motes.core.weights import log_mean_exp
from motes.errors import MotesError
from motes.rng import Rng


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
