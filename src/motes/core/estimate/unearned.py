"""Rewards and likelihoods that chose nothing: what a run then says instead of an error bar of zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles

ROUNDING = 1e-9


def unearned(particles: Particles, reward: Tensor | None, called: str = "reward") -> StandardError | None:
    """Why there is no error bar, if particles weigh the same and have the same reward (N,), nats; else None.

    Without a reward they cannot weigh otherwise. With one, others that it prefers may not have been met.
    """
    weight, n = particles.log_weight, particles.n
    if reward is None or n == 1 or len(torch.unique(particles.root)) < n:
        return None
    if not max(float(weight.max() - weight.min()), float(reward.max() - reward.min())) <= ROUNDING:  # NaN: all are zero
        return None
    return chose_nothing(f"the {called}", float(reward[0]), f"{n} particles", n)


def chose_nothing(what: str, value: float, all_of: str, n: int) -> StandardError:
    """The missing error bar where `what` had this value for all of what `n` draws met: evidence and means have none."""
    said = (
        f"{what} was {value:.4g} for each of the {all_of}, so that nothing says what it makes of others: they have a "
        f"probability of at most about {min(1.0, 3 / n):.2g} to be drawn"
    )
    return StandardError(math.nan, "none", said, means=said)
