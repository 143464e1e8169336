"""A last look at the draws of finished chains: whether they have the law that they stand for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from motes.core.particles import Particles
from motes.density.last_look import MOST, LastLook, last_look
from motes.kernels import Kernel, Target
from motes.laws.law import Law
from motes.rng import Rng

FAMILIES = 64
"""Batches in all whose draws count as families: with those of 16 chains alone three of eight runs on schools, whose
means were wrong by 3 to 6 of their errors, passed."""


def spent(shared: dict[str, Any], evaluations: float) -> dict[str, Any]:
    """What stands under "look" in `shared` after further `evaluations` of each chain."""
    noted = LastLook(**shared["look"])
    return replace(noted, spent=noted.spent + evaluations).to_shared()


def looked_at(rng: Rng, particles: Particles, law: Law, target: Target, kernel: Kernel, draws: Tensor) -> Particles:
    """Finished chains with what further moves of some of their draws (N, T, d) tell of them, under "look" in `shared`.

    Chains that never enter a narrow part, such as the neck of a hierarchy, agree with each other; draws that are moved
    on in other coordinates and by steps of all lengths do not stay where they are.

    Args:
        particles: with what the run has spent, a chain, under "look".
        law: what is sampled.
        target: the same at temperature 1, as kernels see it.
        kernel: what moves the draws.
    """
    chains, length = draws.shape[:2]
    cuts, noted = math.ceil(FAMILIES / chains), LastLook(**particles.shared["look"])
    batch = length // cuts
    each = min(batch, math.ceil(MOST / (chains * cuts)))
    if each == 0 or law.levels is not None:
        return particles
    index = length - cuts * batch + torch.arange(cuts * each) * batch // each
    state = law.evaluate(draws[:, index].flatten(0, 1), kernel.gradient)
    m = len(state["position"])
    even, family = torch.full((m,), 1 / m, dtype=torch.float64), torch.arange(m) // each
    look = last_look(rng, replace(noted, spent=noted.spent * chains / m), target, kernel, state, even, family)
    evaluations = particles.info["evaluations"] + (look.evaluations + m) / chains
    shared = {**particles.shared, "look": replace(look, spent=noted.spent).to_shared()}
    return replace(particles, shared=shared, info={**particles.info, "evaluations": evaluations})
