"""The best of n images, and how far that is from the model's own law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.run import Run
from motes.errors import MotesError


@dataclass(frozen=True)
class BestOf:
    """The best image of each group of n.

    Attributes:
        images: (groups, *shape).
        reward: (groups,) nats.
        divergence: the Kullback-Leibler divergence of the law of a best image from the model's, at most, nats.
    """

    images: Tensor
    reward: Tensor
    divergence: float


def best_of(run: Run, n: int) -> BestOf:
    """The image with the highest reward in each consecutive group of n.

    The divergence is log n - (n - 1) / n, exact where no two rewards are equal, a bound otherwise.

    Args:
        run: of a `ReverseDiffusion` with a reward, no guidance, and `ess_threshold=0`: independent images.
        n: images a group; must divide the number of particles.

    Raises:
        ValueError: n does not divide the number of particles.
        MotesError: the images are not independent draws of the model, or have no reward.

    References:
        Beirami, Agarwal, Berant, D'Amour, Eisenstein, Nagpal & Suresh (2025), Theoretical Guarantees on the Best-of-n
        Alignment Policy, ICML, Theorem 1 (the divergence).
    """
    run = run.alone("best_of")
    particles, images = run.particles, run.view
    if n < 1 or particles.n % n:
        raise MotesError(f"n must divide the {particles.n} particles, not {n}")
    asked = "reward" in run.trace  # the particles hold zeros where there is no reward
    if not isinstance(particles.x, dict) or "reward" not in particles.x or not asked:
        raise MotesError("the run has no reward: give its model one")
    if len(particles.root.unique()) < particles.n:
        raise MotesError("the run was resampled, so its images are not independent: sample with ess_threshold=0")
    if "shift" in particles.x or not torch.allclose(particles.log_weight, particles.x["reward"]):
        raise MotesError("the run was guided: the best of n is about images of the model itself, with guidance=None")
    reward = particles.x["reward"].reshape(-1, n)
    best, where = reward.max(1)
    return BestOf(images[torch.arange(len(best)) * n + where], best, math.log(n) - (n - 1) / n)
