"""Whether a denoiser is right on average, and as wrong as it claims."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.diagnostics.common import noised, prediction
from motes.errors import ShapeError
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class Calibration:
    """How a denoiser's predictions compare with the data, by noise level.

    Attributes:
        times: (T,) as given.
        noise_level: (T,) sigma.
        bias: (T,) E|E D(x_t) - E x_0|^2 a number of the image, with its noise taken off: 0 for a calibrated score; may
            come out slightly negative.
        error: (T,) E|D(x_t) - x_0|^2 a number of the image.
        claimed: (T,) sigma^2 / alpha E tr(dD/dx) a number of the image, which is what `error` is for the right
            denoiser.
        excess: (T,) error - claimed, by pairs: positive means overconfidence.
    """

    times: Tensor
    noise_level: Tensor
    bias: Estimate[Tensor]
    error: Estimate[Tensor]
    claimed: Estimate[Tensor]
    excess: Estimate[Tensor]


def calibration(
    denoiser: Denoiser, samples: Tensor, times: Tensor, *, seed: int | Rng, micro_batch: int | None = None
) -> Calibration:
    """Two identities of the right denoiser, measured: its score has mean zero, and its Jacobian is its error.

    E score(x_t) = alpha / sigma^2 E[D(x_t) - x_0] = 0, and by Tweedie's formula of second order the posterior
    covariance of the data is sigma^2 / alpha dD/dx, so E|D(x_t) - x_0|^2 = sigma^2 / alpha E tr(dD/dx). The trace is
    probed with the noise itself: by Stein's identity E[noise . D(x_t)] = sigma E tr(dD/dx), so no gradient is needed.
    The bias is estimated without its own variance, from distinct pairs of samples; its error bar errs on the large
    side.

    Args:
        denoiser: the model.
        samples: (n, *shape) data, n >= 3, that the model was not trained on.
        times: (T,) where to look.
        seed: a whole number or an Rng, of the noise, which comes in pairs of opposite signs.
        micro_batch: rows a call of the model.

    References:
        Efron (2011), Tweedie's Formula and Selection Bias, JASA 106. Pang et al. (2023), On Calibrating Diffusion
        Probabilistic Models, NeurIPS (the mean). Manor & Michaeli (2024), On the Posterior Distribution in Denoising,
        ICLR (the covariance).

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> denoiser = gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))
        >>> found = calibration(denoiser, Rng(0).at("x").normal((500, 1)), torch.tensor([0.5]), seed=Rng(0))
        >>> bool((found.error.value - found.claimed.value).abs() < 0.2)
        True
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    process, d, n = denoiser.process, samples[0].numel(), len(samples)
    if n < 3:
        raise ShapeError(f"need at least 3 samples, not {n}")
    times = torch.as_tensor(times, dtype=torch.float64).flatten()
    biases, spreads, errors, claims = [], [], [], []
    for k, t in enumerate(times.tolist()):
        x, noise = noised(process, samples, t, rng.at("noise", inner=k))
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        gap, error, claim = 0.0, 0.0, 0.0
        for sign in (1, -1):
            out = prediction(denoiser, x if sign == 1 else 2 * alpha * samples - x, t, micro_batch)
            away = (out - samples).double().flatten(1)
            gap, error = gap + 0.5 * away, error + 0.5 * away.square().mean(1)
            claim = claim + 0.5 * sign * sigma / alpha * (noise * out).double().flatten(1).mean(1)
        value, se = squared_mean(gap)
        biases.append(value)
        spreads.append(se)
        errors.append(error)
        claims.append(claim)
    value, se = torch.tensor([biases, spreads], dtype=torch.float64) / d
    bias = Estimate(value, se, method="jackknife")
    real, claimed = torch.stack(errors, 1), torch.stack(claims, 1)
    found = (independent_mean(real), independent_mean(claimed), independent_mean(real - claimed))
    return Calibration(times, process.sigma(times), bias, *found)


def squared_mean(values: Tensor) -> tuple[float, float]:
    """|E values|^2 without bias for rows (n, d), and its standard error.

    The jackknife knows the part that is linear in the mean's error, 4 m' S m / n; where the mean is zero what is left
    is 2 tr(S^2) / n^2, which is added.
    """
    n, total, square = len(values), values.sum(0), values.square().sum(1)
    pairs = total.square().sum() - square.sum()  # over distinct rows
    each = pairs - 2 * (values @ total - square)  # with one row left out
    left = each / ((n - 1) * (n - 2))
    jackknife = (n - 1) / n * (left - left.mean()).square().sum()
    away = values - values.mean(0)
    gram = away @ away.T if n < values.shape[1] else away.T @ away
    rest = 2 * (gram / (n - 1)).square().sum() / n**2
    return float(pairs / (n * (n - 1))), math.sqrt(float(jackknife + rest))
