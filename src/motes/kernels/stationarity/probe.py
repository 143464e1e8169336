"""A second opinion on a population: sweeps with steps of all lengths, under which its means must stay where they are.

Where a law is narrow in some places, the neck of a funnel, a step that fits the population as a whole is never accepted
there, and who is outside never enters: the acceptance is fine, and what is missing leaves no trace. Among steps of all
lengths some fit, so that particles begin to go where they should be, and the means drift.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.dynamics.leapfrog import leapfrog
from motes.kernels.kernel import State, Target, accepted, select
from motes.kernels.stationarity.drift import MeanDrift, drift_between
from motes.rng import Rng

OCTAVES = 7.0
"""How many times the largest step is halved at most: the factors are uniform in their logarithm."""
LEAPFROG = 4
"""Leapfrog steps of a trajectory."""
STEP = 1.5
"""The largest step of a trajectory in one dimension, in standard deviations; d dimensions divide it by d^(1/4)."""
WALK = 2.4
"""The largest step of a random walk in one dimension; d dimensions divide it by d^(1/2)."""


def cost(evaluations: int, gradient: bool) -> int:
    """How many evaluations a particle `probe` makes of those that it may, with trajectories or without."""
    unit = LEAPFROG if gradient else 1
    return max(1, evaluations // unit) * unit


def probe(rng: Rng, target: Target, state: State, weight: Tensor, family: Tensor, evaluations: int) -> MeanDrift:
    """How far the means of a population (N,) drift under Hamiltonian moves, or random walks, of all lengths.

    Args:
        state: the particles as `target` evaluated them; with gradients if those are to be followed.
        weight: (N,) their normalised weights.
        family: (N,) int64, see `drift`.
        evaluations: how many a particle may cost; at least one sweep is made.
    """
    return drift_between(target, state, wander(rng, target, state, weight, evaluations), weight, family)


def wander(rng: Rng, target: Target, state: State, weight: Tensor, evaluations: int) -> State:
    """The particles (N,) after the sweeps of `probe`, with steps of all lengths."""
    gradient, x = any(k.endswith("gradient") for k in state), state["position"]
    n, d = x.shape
    scale = fit_scale(x, weight, "auto", torch.ones(2, d, dtype=x.dtype))
    for i in range(cost(evaluations, gradient) // (LEAPFROG if gradient else 1)):
        r = rng.at("probe", inner=i)
        factor = torch.exp2(-OCTAVES * r.at("length").uniform((n, 1), dtype=x.dtype))
        noise = r.at("momentum").normal((n, d), dtype=x.dtype)
        if gradient:
            end = leapfrog(target, state, noise, STEP / d**0.25 * factor, LEAPFROG, scale)
            new, log_ratio = end.state, torch.where(end.kept, end.log_ratio, -math.inf)
        else:
            new = target.evaluate(state["position"] + WALK / math.sqrt(d) * factor * scaled(noise, scale), False)
            log_ratio = target.log_density(new) - target.log_density(state)
        _, accept = accepted(r, log_ratio)
        state = select(accept, new, state)
    return state
