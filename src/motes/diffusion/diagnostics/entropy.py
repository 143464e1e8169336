"""Entropies of noised data: their rates by the model, and what bounds them from below."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.diagnostics.common import by_snr, noised, prediction
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class EntropyRate:
    """The rate at which the entropy of x_t grows, by noise level, nats per unit of time.

    Attributes:
        times: (T,) as given.
        model: (T,) d f + g^2 / 2 E|score|^2 with the model's score: the rate if the score is right.
        bound: (T,) d f + g^2 / 2 (d - E|noise + sigma score|^2) / sigma^2, which is at most the true rate whatever the
            score; for the right score both are the rate.
    """

    times: Tensor
    model: Estimate[Tensor]
    bound: Estimate[Tensor]


def entropy_rate(
    denoiser: Denoiser, samples: Tensor, times: Tensor, *, seed: int | Rng, micro_batch: int | None = None
) -> EntropyRate:
    """How fast noise makes entropy, as the model's score has it and as is sure.

    dH/dt = E div f + g^2 / 2 E|grad log q_t|^2. The score s of the model enters with its error: since
    E|s - grad log q|^2 = E|s + noise / sigma|^2 - d / sigma^2 + E|grad log q|^2 is not negative, the true rate is at
    least d f + g^2 / 2 (d / sigma^2 - E|s + noise / sigma|^2), with equality for the true score only. A `model`
    rate far from `bound`, in units of their errors, says that the score is wrong at that level.

    Args:
        denoiser: the model.
        samples: (n, *shape) data, of d numbers each.
        times: (T,) where to look.
        seed: a whole number or an Rng, of the noise.
        micro_batch: rows a call of the model.

    References:
        Song, Durkan, Murray & Ermon (2021), Maximum Likelihood Training of Score-Based Diffusion Models, NeurIPS,
        theorem 3 and appendix A. Kong, Brekelmans & Ver Steeg (2023), Information-Theoretic Diffusion, ICLR.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VarianceExploding, gaussian
        >>> denoiser = gaussian(VarianceExploding(), torch.zeros(1), torch.eye(1))
        >>> data = Rng(0).at("x").normal((500, 1))
        >>> rate = entropy_rate(denoiser, data, torch.tensor([0.5]), seed=Rng(0))
        >>> bool((rate.model.value - rate.bound.value).abs() < 5 * rate.model.se)
        True
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    process, d = denoiser.process, samples[0].numel()
    times = torch.as_tensor(times, dtype=torch.float64).flatten()
    models, bounds = [], []
    for k, t in enumerate(times.tolist()):
        x, _ = noised(process, samples, t, rng.at("noise", inner=k))
        data = prediction(denoiser, x, t, micro_batch)
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        f, g2 = float(process.drift(t)), float(process.diffusion(t)) ** 2
        score = (alpha * data - x).double().flatten(1) / sigma**2
        error = alpha**2 / sigma**4 * (data - samples).double().flatten(1).square().sum(1)  # |s + noise / sigma|^2
        models.append(d * f + 0.5 * g2 * score.square().sum(1))
        bounds.append(d * f + 0.5 * g2 * (d / sigma**2 - error))
    return EntropyRate(times, independent_mean(torch.stack(models, 1)), independent_mean(torch.stack(bounds, 1)))


def entropy_bound(
    denoiser: Denoiser, samples: Tensor, *, seed: int | Rng, steps: int = 100, micro_batch: int | None = None
) -> Estimate[Tensor]:
    """An upper bound of the entropy of the data as it is at t_min, nats: equal for the right score.

    The integral of `EntropyRate.bound` down from t_max, where x_t is taken to be normal with the sampler's own spread:

        H(x_{t_min}) <= d / 2 log(2 pi e) + (E|x_T|^2 / s^2 - d) / 2 + d log(s sigma_min / sigma_max)
                        + 1/2 int E|D(x_t) - x_0|^2 d snr.

    It bounds the cross-entropy of the data under the law of the model's reverse equation too, so of two models the one
    with the smaller bound is nearer to the data, by that many nats if the bounds are tight.

    Args:
        denoiser, samples, seed, micro_batch: as for `entropy_rate`.
        steps: cells of equal log-snr of the trapezoid rule.

    References:
        Song et al. (2021), Maximum Likelihood Training of Score-Based Diffusion Models, NeurIPS, theorem 3.
        Kingma, Salimans, Poole & Ho (2021), Variational Diffusion Models, NeurIPS, Eq. (14)-(18).
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    process, d = denoiser.process, samples[0].numel()
    times = process.times(steps, "snr")
    error = []
    for k, t in enumerate(times.tolist()):
        x, _ = noised(process, samples, t, rng.at("noise", inner=k))
        error.append((prediction(denoiser, x, t, micro_batch) - samples).double().flatten(1).square().sum(1))
    at_end, _ = noised(process, samples, process.t_max, rng.at("end"))
    s = process.start_std
    cross = 0.5 * at_end.double().flatten(1).square().sum(1).cpu() / s**2 + d * math.log(s * math.sqrt(2 * math.pi))
    # int (d f + g^2 d / (2 sigma^2)) dt = d log(sigma_max / sigma_min), the rate of noise alone
    grown = d * float(torch.log(process.sigma(process.t_max)) - torch.log(process.sigma(process.t_min)))
    return independent_mean(cross - grown + by_snr(process, times, torch.stack(error, 1)))
