"""Ranks of true images among draws from a model's posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.core.estimate.ranks import uniform_p_value
from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.diagnostics.common import noised, prediction
from motes.diffusion.processes.transition import transitions
from motes.errors import ShapeError
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class Ranks:
    """The ranks of true images among posterior draws at one noise level.

    Attributes:
        t: the time.
        rank: (n,) how many of the draws lie below the truth, 0..draws.
        draws: the number of draws an image.
        p_value: of Pearson's chi-squared test that all ranks are equally likely.
        coverage: how often the truth lies in the central half, and in the central nine tenths, of its draws, by ranks
            inside; `nominal` is what a calibrated model has.
        nominal: (2,) the shares of ranks counted.
    """

    t: float
    rank: Tensor
    draws: int
    p_value: float
    coverage: Estimate[Tensor]
    nominal: Tensor


def posterior_ranks(
    denoiser: Denoiser,
    samples: Tensor,
    t: float,
    statistic: Callable[[Tensor], Tensor],
    *,
    seed: int | Rng,
    draws: int = 19,
    steps: int = 30,
    micro_batch: int | None = None,
) -> Ranks:
    """Simulation-based calibration of a denoiser: the truth is one more draw from its own posterior.

    Data is noised to time t and denoised again by the model's sampler, several times. If model and sampler are right,
    truth and draws are exchangeable, so the rank of a statistic of the truth is uniform on 0..draws exactly. A U shape
    says that draws are too narrow, a slope that they are shifted. Ties are broken at random.

    Args:
        denoiser: the model.
        samples: (n, *shape) data that the model was not trained on.
        t: the time to noise to.
        statistic: maps images (N, *shape) to (N,) numbers, such as one pixel or the mean.
        seed: a whole number or an Rng, of all noise.
        draws: draws an image; the chi-squared test wants at least 5 images a rank, n >= 5 (draws + 1).
        steps: steps of the reverse sampler from t to t_min, equal in log-snr.
        micro_batch: rows a call of the model.

    Raises:
        ShapeError: the statistic returned another shape.

    References:
        Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian Inference Algorithms with
        Simulation-Based Calibration, arXiv 1804.06788.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> denoiser = gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))
        >>> data = Rng(0).at("x").normal((300, 1))
        >>> posterior_ranks(denoiser, data, 0.4, lambda x: x[:, 0], seed=Rng(0), draws=9).p_value > 1e-6
        True
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser, statistic=statistic)
    process = denoiser.process
    ends = float(process.log_snr(t)), float(process.log_snr(process.t_min))
    times = process.time(torch.linspace(ends[0], ends[1], steps + 1, dtype=torch.float64))
    times[0], times[-1] = t, process.t_min
    table = transitions(process, times, still=True)
    start, _ = noised(process, samples, t, rng.at("noise"))
    x = start.repeat_interleave(draws, 0)
    for k in range(table.steps):
        xi = rng.at("denoise", inner=k).normal(tuple(x.shape), dtype=x.dtype).to(x.device)
        data = prediction(denoiser, x, float(times[k]), micro_batch)
        x = float(table.keep[k]) * x + float(table.pull[k]) * data + float(table.std[k]) * xi
    images = prediction(denoiser, x, float(times[-1]), micro_batch)

    def asked(images: Tensor) -> Tensor:
        value = in_parts(statistic, micro_batch, images).double().cpu()
        if value.shape != (len(images),):
            raise ShapeError(f"the statistic must return ({len(images)},) numbers, not {tuple(value.shape)}")
        return value

    n = len(samples)
    truth, drawn = asked(samples)[:, None], asked(images).reshape(n, draws)
    equal = (drawn == truth).sum(1)
    rank = (drawn < truth).sum(1) + torch.floor(rng.at("ties").uniform((n,)) * (equal + 1)).long()
    p_value = uniform_p_value(rank, draws)
    inside, nominal = [], []
    for level in (0.5, 0.9):
        cut = round((draws + 1) * (1 - level) / 2)
        inside.append(((rank >= cut) & (rank <= draws - cut)).double())
        nominal.append((draws + 1 - 2 * cut) / (draws + 1))
    return Ranks(
        t, rank, draws, p_value, independent_mean(torch.stack(inside, 1)), torch.tensor(nominal, dtype=torch.float64)
    )
