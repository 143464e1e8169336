"""Weights with tails so heavy that their spread says too little: seen at every step, told at the end.

`core/estimate/variance.py` withholds the error bar where few particles had the largest weights, so that even their
mean is unknown; here the mean may be known, and the error bar of it is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.upper_tail import pareto_shape, tail_length
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.weights import ess

HEAVY = 0.5
"""From this shape of a Pareto tail on the variance of weights is infinite, so no error bar can be taken from it: of 21
runs of mixtures that were off by more than 4 of their bars it was above in 18."""
CHANCE = 4.0
"""This over the number of weights in the tail is taken off the shape, which few of them know badly: with 128, 256 and
512 particles it then was above in 1 of 216 runs of normal laws, tilted with and without guidance."""
MANY = 100
"""Positive weights from which a tail is looked at."""
UNEVEN = 0.8
"""Weights are looked at where their effective sample size is below this share of the particles."""
NONE = -torch.inf


def light() -> dict[str, Tensor]:
    """What a population shares of its tails at first."""
    return {"tail": torch.tensor(NONE, dtype=torch.float64)}


def watched(particles: Particles, shared: dict[str, Any]) -> Particles:
    """The particles after a step, with the heaviest tail so far in what they share.

    Args:
        particles: after the step, before they may be resampled.
        shared: of the population before the step.
    """
    tail = shared["tail"]
    if ess(particles.log_weight) < UNEVEN * particles.n:
        alive = int((particles.log_weight > -torch.inf).sum())
        if alive >= MANY:
            shape = pareto_shape(particles.log_weight) - CHANCE / tail_length(alive)
            if shape > float(shared["tail"]):  # NaN where too few weights differ
                tail = torch.tensor(shape, dtype=torch.float64)
    if particles.shared.get("tail") is tail:
        return particles
    return replace(particles, shared={**particles.shared, "tail": tail})


def remarks(particles: Particles) -> list[str]:
    """A sentence where the weights were too uneven for error bars to hold.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto Smoothed Importance Sampling, JMLR 25, section 3.
    """
    shape = float(particles.shared["tail"])
    if not shape > HEAVY:
        return []
    return [
        Remark(
            f"at some step a few particles had most of the weight (a Pareto tail of shape {shape:.2f} at least; from "
            f"{HEAVY} on the variance of weights is infinite): particles that would matter as much may be missing, and "
            "estimates be off by more than their error bars say. Use other guidance or a better twist, or more "
            "particles",
            ALL,
        )
    ]
