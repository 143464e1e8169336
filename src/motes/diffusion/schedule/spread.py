"""The spread of deterministic sampling, as a matter of the number of steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process
from motes.errors import MotesError


def angles(process: Process, times: Tensor, std: float) -> Tensor:
    """arctan(sigma / (alpha std)) at times (M,), rad: the coordinate in which deterministic steps shrink alike."""
    if not std > 0:
        raise MotesError(f"the standard deviation of the data must be positive, not {std}")
    return torch.atan(torch.exp(-process.log_snr(times)) / std)


def deterministic_spread(process: Process, times: Tensor, std: float) -> float:
    """The share of the true spread that deterministic ancestral steps keep for normal data: prod cos(angle steps).

    For x = alpha x_0 + sigma noise, x_0 from N(m, std^2), each step multiplies deviations by the true flow's factor
    times the cosine of the difference of `angles`, so that ensembles of few steps are too narrow.

    Args:
        process: the noising process.
        times: (K + 1,) falling.
        std: the standard deviation of the data, along one principal axis.
    """
    return float(torch.cos(angles(process, times, std).diff()).prod())


def steps_for_spread(process: Process, std: float, share: float) -> Tensor:
    """The fewest times of a deterministic sampler whose ensemble has a wanted share of the true spread.

    n equal steps of the whole angle A keep cos(A / n)^n, the most that n steps can. This takes the smallest n that
    reaches `share` and makes the last step longer or shorter until the share is met: exact for normal data, where
    `noise=0` and the true law at the first time are given; for other data it is what a normal law of that spread would
    do.

    Args:
        process: the noising process.
        std: the standard deviation of the data.
        share: of the true standard deviation, less than 1 and more than what a single step keeps.

    Returns:
        (n + 1,) falling times.

    Raises:
        ValueError: no number of steps keeps that share.

    References:
        Merizzi, Asperti & Colamonaco (2025), Controlling Ensemble Variance in Diffusion Models: An Application for
        Reanalyses Downscaling, arXiv 2501.14822 (the idea).
        Song, Meng & Ermon (2021), Denoising Diffusion Implicit Models, ICLR, Eq. (12) (the step).

    Example:
        >>> from motes.diffusion import VarianceExploding
        >>> process = VarianceExploding(sigma_min=0.002, sigma_max=80)
        >>> times = steps_for_spread(process, 0.5, 0.9)
        >>> round(deterministic_spread(process, times, 0.5), 6), len(times) - 1
        (0.9, 12)
    """
    ends = angles(process, torch.tensor([process.t_max, process.t_min], dtype=torch.float64), std)
    first, whole = float(ends[0]), float(ends[0] - ends[1])
    least = math.cos(whole)
    if not least <= share < 1:
        raise MotesError(f"deterministic steps keep shares from {least:.4g} (one step) to less than 1, not {share}")
    n = 1
    while n * math.log(math.cos(whole / n)) < math.log(share) - 1e-12:
        n += 1
    low, high = (whole / n, whole / (n - 1)) if n > 1 else (whole, whole)  # of the n - 1 equal steps before the last
    for _ in range(100 if n > 1 else 0):
        middle = 0.5 * (low + high)
        kept = (n - 1) * math.log(math.cos(middle)) + math.log(math.cos(whole - (n - 1) * middle))
        low, high = (middle, high) if kept > math.log(share) else (low, middle)
    angle = first - low * torch.arange(n, dtype=torch.float64)
    times = torch.tensor([process.t_max, *[0.0] * (n - 1), process.t_min], dtype=torch.float64)
    times[1:-1] = process.time(-torch.log(std * torch.tan(angle[1:])))
    return times
