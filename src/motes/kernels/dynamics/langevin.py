"""A step of the Langevin diffusion in the coordinates in which the population is white."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.kernels.adaptation.scale import pull, scaled
from motes.kernels.kernel import State, Target


def langevin(
    target: Target, state: State, u: Tensor, h: float, drift: float, scale: Tensor
) -> tuple[State, Tensor, Tensor]:
    """The step y = x + h S (u + drift g(x)) with g = S^T grad log p, and the noise that would lead back.

    With drift h / 2 it is a leapfrog step of length h from velocity u.

    Args:
        u: (N, d) noise or velocities, standard normal in equilibrium.
        scale: the population's two factors S, of `fit_scale`.

    Returns:
        The state at y, v = u + drift (g(x) + g(y)) (N, d), and (|u|^2 - |v|^2) / 2 (N,).
    """
    half = torch.add(u, pull(target.gradient(state), scale), alpha=drift)
    there = target.evaluate(torch.add(state["position"], scaled(half, scale), alpha=h), True)
    back = torch.add(half, pull(target.gradient(there), scale), alpha=drift)
    return there, back, 0.5 * (u.square().sum(1) - back.square().sum(1))
