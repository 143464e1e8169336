"""Intermediate rewards: how the reward of a half-denoised sample weighs on a path before its end.

Whatever the reward of the prediction says on the way, a path's total at the end is its reward there: the potentials of
a path telescope, so the particles target the law tilted by exp(reward) whatever is chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process
from motes.errors import MotesError, UnknownName

Schedule = str | Callable[[float], float]
SCHEDULES = ("signal", "linear", "constant", "end")


def strengths(schedule: Schedule, process: Process, times: Tensor) -> Tensor:
    """(K + 1,) float64: how much of the predicted reward counts at each time; 1 at the end.

    Args:
        schedule: "signal" is alpha^2 / (alpha^2 + sigma^2), the share of unit-variance data in x_t; "linear" rises with
            the step; "constant" is 1; "end" is 0 until the last step; or a function of the time.
        process, times: the process, and the falling times (K + 1,) of the sampler.

    Raises:
        UnknownName: another schedule.
        ValueError: the function returned something that is no finite number.
    """
    if callable(schedule):
        value = torch.tensor([float(schedule(float(t))) for t in times], dtype=torch.float64)
    elif schedule == "signal":
        value = torch.sigmoid(2 * process.log_snr(times))
    elif schedule == "linear":
        value = torch.linspace(0, 1, len(times), dtype=torch.float64)
    elif schedule in ("constant", "end"):
        value = torch.full_like(times, 1.0 if schedule == "constant" else 0.0)
    else:
        raise UnknownName("schedule", schedule, SCHEDULES)
    if not bool(torch.isfinite(value).all()):
        raise MotesError(f"the schedule must give a finite number at every time, not {value.tolist()}")
    value[-1] = 1.0
    return value


Potential = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(twist, total, history), each (N,) float64 nats, to the new (total, history): a path's log-weight so far is `total`.

The twist is strength * reward of the present prediction."""


def difference(twist: Tensor, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """The total is the present twist: each step multiplies by exp(its change)."""
    return twist, history


def maximum(twist: Tensor, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Each step multiplies by exp(the largest twist of the path so far)."""
    history = torch.maximum(history, twist)
    return total + history, history


def accumulated(twist: Tensor, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Each step multiplies by exp(the sum of the path's twists so far); heavy-tailed, keep the schedule small."""
    history = history + twist
    return total + history, history


POTENTIALS: dict[str, tuple[Potential, float]] = {
    "difference": (difference, 0.0),
    "max": (maximum, -math.inf),
    "sum": (accumulated, 0.0),
}
"""By name: the potential, and the history that a path starts with.

References:
    Singhal, Horvitz, Teehan, Ren, Yu, McKeown & Ranganath (2025), A General Framework for Inference-time Scaling and
    Steering of Diffusion Models, arXiv 2501.06848, section 4.
"""
