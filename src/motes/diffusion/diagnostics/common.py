"""What the diagnostics share: noised samples, means with error bars, and integrals over noise levels."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.process import Process
from motes.errors import ShapeError
from motes.rng import Rng


def noised(process: Process, samples: Tensor, t: float, rng: Rng) -> tuple[Tensor, Tensor]:
    """(x_t, noise) for samples (n, *shape) at time t."""
    if samples.ndim < 2 or len(samples) < 2:
        raise ShapeError(f"need at least 2 samples (n, *shape), not a tensor of shape {tuple(samples.shape)}")
    noise = rng.normal(tuple(samples.shape), dtype=samples.dtype).to(samples.device)
    return float(process.alpha(t)) * samples + float(process.sigma(t)) * noise, noise


def prediction(denoiser: Denoiser, x: Tensor, t: float, micro_batch: int | None) -> Tensor:
    """The denoiser's prediction of the data, without a gradient."""
    with torch.no_grad():
        return in_parts(lambda part: denoiser.data(part, t), micro_batch, x)


def by_snr(process: Process, times: Tensor, values: Tensor) -> Tensor:
    """1/2 int values d snr for values (n, T) at falling times (T,): (n,), by the trapezoid rule in log(snr).

    Integrands v(snr) are smooth in the logarithm, d snr = 2 snr d log(alpha / sigma).
    """
    log_snr = process.log_snr(times)
    return torch.trapezoid(values.double().cpu() * torch.exp(2 * log_snr), log_snr, dim=1)
