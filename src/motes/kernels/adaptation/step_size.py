"""How a step size follows an acceptance: fast while it is far off, and less and less once it is near."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from motes.kernels.kernel import Parameters

UNTRIED: Parameters = {"turns": 0, "direction": 0.0, "streak": 0}
"""What belongs to the parameters of a kernel that uses `next_step_size`, beside "step_size"."""

FAR = 1000.0
"""Nats at which the energy error of a step is cut off before its variance is taken."""


def next_step_size(parameters: Parameters, mean: float, error: float) -> Parameters:
    """The parameters with the step size after a lesson: stochastic approximation in its logarithm.

    The gain falls with each change of direction, not with time (Kesten 1958), so a step that is off by orders of
    magnitude gets there in a few lessons, and noise is averaged afterwards. Where the acceptance is near 0 or 1, all
    that it says is that the step is off by more than a factor of 3, and a streak of those brings back a large gain.

    References:
        Kesten (1958), Accelerated stochastic approximation, Annals of Mathematical Statistics 29(1).

    Args:
        parameters: with "step_size" and those of `UNTRIED`.
        mean: the mean acceptance.
        error: by how much the logarithm of the step is too small, to first order, as the acceptance says.
    """
    before, streak = parameters["direction"], 0
    if mean < 0.1 or mean > 0.98:
        error = math.copysign(1.4, 0.5 - (mean < 0.1))
        streak = parameters["streak"] + 1 if error * before > 0 else 1
    turns = parameters["turns"] + (error * before < 0)
    gain = max((1 + turns) ** -0.75, 0.05, min(1.0, 0.25 * (streak - 1)))
    step = parameters["step_size"] * math.exp(gain * error)
    return {**parameters, "step_size": step, "turns": turns, "direction": error, "streak": streak}


def reopened(parameters: Parameters) -> Parameters:
    """The parameters after a change of scale, to which the step has to be fitted anew: the gain is raised again."""
    return {**parameters, "turns": min(parameters["turns"], 3), "streak": 0}


def acceptance_error(mean: float, wanted: float) -> float:
    """The error for `next_step_size` of a mean acceptance, if it is 2 Phi(-k h^2) of the step h.

    References:
        Beskos, Pillai, Roberts, Sanz-Serna & Stuart (2013), Optimal tuning of the hybrid Monte Carlo algorithm,
        Bernoulli 19(5A), theorem 3.6.
    """
    normal = NormalDist()
    q = -normal.inv_cdf(wanted / 2)
    return (mean - wanted) / (4 * q * normal.pdf(q))


def steadied(parameters: Parameters, error: Tensor, weight: Tensor, wanted: float) -> Parameters:
    """The step at which the energy errors (N,) would have the `wanted` variance a dimension, were it like step^6."""
    error = torch.nan_to_num(error, nan=-FAR).clamp(-FAR, FAR).to(weight)
    found = float(weight @ (error - weight @ error).square()) / parameters["scale"].shape[-1]
    ratio = (wanted / found) ** (1 / 6) if found > 0 else 2.0
    return {**parameters, "step_size": parameters["step_size"] * min(max(ratio, 0.5), 2.0)}
