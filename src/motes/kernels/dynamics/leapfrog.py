"""A leapfrog trajectory in the coordinates in which the population is white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.kernels.adaptation.scale import pull, scaled
from motes.kernels.kernel import State, Sweep, Target, accepted, select
from motes.rng import Rng

DIVERGED = 1000.0
"""Nats by which the potential energy alone may exceed the whole energy at the start of a trajectory."""


@dataclass(frozen=True)
class Trajectory:
    """Where leapfrog steps have led.

    Attributes:
        state: the particles at the end.
        velocity: (N, d) their velocities there, white.
        log_ratio: (N,) log-density minus kinetic energy at the end, less the same at the start.
        kept: (N,) false where the trajectory was given up.
    """

    state: State
    velocity: Tensor
    log_ratio: Tensor
    kept: Tensor


def leapfrog(target: Target, state: State, velocity: Tensor, h: Tensor, steps: int, scale: Tensor) -> Trajectory:
    """`steps` times v += h/2 S^T grad; x += h S v; v += h/2 S^T grad.

    A trajectory is given up where its potential energy is more than DIVERGED nats above the energy of its start, or
    where the law is undefined: it goes back to its start and stays there, so that it neither runs off to infinity nor
    has an undefined point evaluated again and again. `kept` is that rule seen from both ends, so that giving up is
    reversible. A fall from far out, where potential energy becomes kinetic, is none.

    Args:
        velocity: (N, d), standard normal in equilibrium.
        h: (N, 1) the step of each particle.
        scale: the population's two factors S, of `fit_scale`.
    """
    x, v, home = state["position"], velocity, state["position"]
    start = lowest = target.log_density(state)
    kinetic = 0.5 * v.square().sum(1)
    floor = start - kinetic - DIVERGED
    v = torch.addcmul(v, h, pull(target.gradient(state), scale), value=0.5)
    there = state
    for i in range(1, steps + 1):
        x = torch.addcmul(x, h, scaled(v, scale))
        there = target.evaluate(x, True)
        now = target.log_density(there)
        lowest = torch.minimum(lowest, now)
        going = (now >= floor)[:, None]
        h, x = torch.where(going, h, 0.0), torch.where(going, x, home)
        v = torch.addcmul(v, h, pull(target.gradient(there), scale), value=1.0 if i < steps else 0.5)
    end, final = target.log_density(there), 0.5 * v.square().sum(1)
    kept = (lowest >= floor) & (lowest >= end - final - DIVERGED)
    return Trajectory(there, v, end - start + kinetic - final, kept)


def ended(rng: Rng, end: Trajectory, state: State, steps: int, seen: dict[str, Tensor] | None = None) -> Sweep:
    """Take the end of each trajectory with the Metropolis probability, or stay at its start `state`."""
    acceptance, accept = accepted(rng, torch.where(end.kept, end.log_ratio, -math.inf))
    return Sweep(select(accept, end.state, state), acceptance, steps, ~end.kept, seen or {})


def least_work(difficulty: float, length: float, most: int) -> int:
    """How many leapfrog steps a trajectory of this length should have, for the least work for an independent draw.

    Acceptance as a function of the step is a(h) = 2 Phi(-difficulty h^2) (Beskos et al. 2013, theorem 3.6), and n steps
    cost n (2 - a) / a.
    """

    def work(n: int) -> float:
        a = math.erfc(difficulty * (length / n) ** 2 / math.sqrt(2))
        return n * (2 - a) / a if a > 0 else math.inf

    n = 1
    while n < most and (work(n) == math.inf or work(n + 1) < work(n)):
        n += 1
    return n
