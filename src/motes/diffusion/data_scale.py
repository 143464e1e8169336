"""Whether the scale that guidance takes for that of the data is too small, told by the predictions on the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.remark import ALL, Remark
from motes.diffusion.processes.process import Process

OTHER = 1.5
"""The data spread by this many times the scale, from which the run says so: then guidance overshoots."""
MANY = 8
"""Particles from which a spread is told."""


def unknown() -> dict[str, Tensor]:
    """What a population shares of the data's spread at first."""
    return {"data_scale": torch.tensor(math.nan, dtype=torch.float64)}


def when(process: Process, times: Tensor, scale: float) -> int:
    """The first step, of those to `times` (K + 1,), after which data of that scale outweigh the noise."""
    over = (process.alpha(times) * scale >= process.sigma(times)).nonzero().flatten().tolist()
    return max(1, over[0]) if over else len(times) - 1


def data_scale(process: Process, t: float, state: Tensor, denoised: Tensor) -> float:
    """The standard deviation of the data, by how much predictions at time t change with the states.

    For normal data of variance s^2 the slope is alpha s^2 / (alpha^2 s^2 + sigma^2), whatever guidance did to the
    states; all numbers of an image together. NaN where states or predictions tell nothing.

    Args:
        t: the time.
        state, denoised: (N, *shape), at that time.
    """
    x, d = (v.detach().flatten(1).to(torch.float64).cpu() for v in (state, denoised))
    if len(x) < MANY:
        return math.nan
    x, d = x - x.mean(0), d - d.mean(0)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    slope = float((x * d).sum() / x.square().sum().clamp(min=1e-300))
    if not 0 < alpha * slope < 1:
        return math.nan
    return math.sqrt(slope * sigma**2 / (alpha * (1 - alpha * slope)))


def scale_remarks(scale: float | None, found: float) -> list[Remark]:
    """What is said where the data spread by more than the scale that was given."""
    if scale is None or not found > OTHER * scale:  # NaN where it is unknown
        return []
    return [
        Remark(
            f"scale={scale:.3g} was given, and the data of the model spread by about {found:.2g}, so that guidance "
            f"overshoots: give scale={found:.2g}, or the largest standard deviation that the measurement sees",
            ALL,
        )
    ]
