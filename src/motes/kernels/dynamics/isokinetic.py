"""Motion of unit speed whose direction the gradient turns: microcanonical dynamics, and steps that follow it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.kernels.adaptation.scale import pull, scaled
from motes.kernels.dynamics.leapfrog import DIVERGED
from motes.kernels.kernel import State, Target
from motes.rng import Rng


def uniform_directions(rng: Rng, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """(N, d) uniform on the sphere; d is at least 2."""
    u = rng.normal(shape, dtype=dtype)
    return u / u.norm(dim=1, keepdim=True)


def turn(u: Tensor, force: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Directions after du/dt = (I - u u^T) force / (d - 1) for a time h, exactly, and the kinetic energy they gain.

    With e = force / |force|, c = e.u and a = h |force| / (d - 1),

        u' = (u + e (sinh a + c (cosh a - 1))) / (cosh a + c sinh a),

    and the volume of directions changes by exp(-K), K = (d - 1) log(cosh a + c sinh a).

    Args:
        u: (N, d) of length 1.
        force: (N, d).
        h: (N, 1).

    Returns:
        (N, d) of length 1, and (N,) K in nats.
    """
    d = u.shape[1]
    size = force.norm(dim=1, keepdim=True)
    e = force / torch.where(size > 0, size, 1.0)
    a = h * size / (d - 1)
    # both sides times 2 exp(-|a|): h, and so a, may be negative
    a, e = a.abs(), torch.where(a < 0, -e, e)
    c, z = (e * u).sum(1, keepdim=True).clamp(-1.0, 1.0), torch.exp(-a)
    new = 2 * z * u + (1 - z) * (1 + z + c * (1 - z)) * e
    gain = a + torch.log((1 + c) + (1 - c) * z.square()) - math.log(2)
    return new / new.norm(dim=1, keepdim=True), (d - 1) * gain[:, 0]


def step(target: Target, state: State, u: Tensor, h: Tensor, scale: Tensor) -> tuple[State, Tensor, Tensor]:
    """One leapfrog step: turn for h/2; x += h S u; turn for h/2.

    Args:
        u: (N, d) directions, white.
        h: (N, 1).
        scale: the population's two factors S, of `fit_scale`.

    Returns:
        The state and the directions after it, and the change (N,) of log-density minus kinetic energy.
    """
    u, first = turn(u, pull(target.gradient(state), scale), 0.5 * h)
    there = target.evaluate(torch.addcmul(state["position"], h, scaled(u, scale)), True)
    u, second = turn(u, pull(target.gradient(there), scale), 0.5 * h)
    return there, u, target.log_density(there) - target.log_density(state) - first - second


def trajectory(
    target: Target, state: State, u: Tensor, h: float, steps: int, scale: Tensor
) -> tuple[State, Tensor, Tensor, Tensor]:
    """`steps` leapfrog steps of all particles.

    Returns:
        The state and the directions at the end, the change (N,) of log-density minus kinetic energy, and whether the
        trajectory was kept (N,): given up is one whose energy error exceeds DIVERGED nats at any point, as seen from
        either end, so that giving up is reversible.
    """
    length = torch.full((len(u), 1), h, dtype=u.dtype)
    total = torch.zeros_like(target.log_density(state))
    lowest = total
    home = state["position"]
    for _ in range(steps):
        state, u, change = step(target, state, u, length, scale)
        total = total + change
        lowest = torch.minimum(lowest, total)
        going = (lowest >= -DIVERGED)[:, None]
        length = torch.where(going, length, 0.0)
        state = {**state, "position": torch.where(going, state["position"], home)}
    return state, u, total, (lowest >= -DIVERGED) & (lowest - total >= -DIVERGED)
