"""The Gaussian transitions of a reverse sampler, as a table of numbers.

A step from time t to an earlier time s draws

    x_s = keep * x_t + pull * denoised(x_t, t) + std * N(0, I)

and an integrator is nothing but a rule for the three numbers. That the transition is a normal law with a known standard
deviation is what makes weights exact: moving the mean by `std * shift` multiplies the law of the noise xi that was
drawn by exp(-shift . xi - |shift|^2 / 2), at any step size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from motes.core.errors import ShapeError, UnknownName
from motes.diffusion.look import digest
from motes.diffusion.process import Process


@dataclass(frozen=True)
class Transitions:
    """The K steps of a sampler.

    Attributes:
        times: (K + 1,) float64, falling.
        keep, pull, std: (K,) float64, the coefficients of x_t, of the denoised prediction and of the noise.
    """

    times: Tensor
    keep: Tensor
    pull: Tensor
    std: Tensor

    @property
    def steps(self) -> int:
        """The number of steps K."""
        return len(self.std)

    @property
    def digest(self) -> str:
        """A few letters that tell these steps from others."""
        return digest(self.times, self.keep, self.pull, self.std)

    def mean(self, k: int, state: Tensor, denoised: Tensor) -> Tensor:
        """The mean of step k of the states and their predictions, both (N, *shape): a tensor that is the caller's."""
        return (float(self.keep[k]) * state).add_(float(self.pull[k]) * denoised)


Integrator = Callable[[Process, Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]


def ancestral(process: Process, t: Tensor, s: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """The forward process's own step backwards, given that the data is the denoised prediction.

    With noise = 1 the transition is q(x_s | x_t, x_0 = denoised), the sampler of denoising diffusion models; `noise`
    multiplies its standard deviation as eta does in denoising diffusion implicit models, whose mean is kept: "ddim" is
    another name of it.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, NeurIPS, Eq. (6)-(7).
        Song, Meng & Ermon (2021), Denoising Diffusion Implicit Models, ICLR, Eq. (12) and (16).
    """
    alpha_t, alpha_s, sigma_t, sigma_s = process.alpha(t), process.alpha(s), process.sigma(t), process.sigma(s)
    added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2  # variance of x_t given x_s
    variance = noise**2 * added * (sigma_s / sigma_t) ** 2
    rest = sigma_s**2 - variance
    if bool((rest < -1e-12 * sigma_s**2).any()):
        raise ValueError(f"noise={noise} asks for more variance than the process has at some step; at most 1 fits")
    keep = torch.sqrt(rest.clamp(min=0)) / sigma_t
    return keep, alpha_s - keep * alpha_t, torch.sqrt(variance)


def euler_maruyama(process: Process, t: Tensor, s: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Euler and Maruyama's step of the reverse equation, with everything taken at the step's beginning.

    x_s = x_t + (t - s) (-f x_t + g^2 (1 + noise^2) / 2 * score(x_t, t)) + noise * g * sqrt(t - s) * N(0, I), which has
    the process's marginals for every `noise` as the steps shrink; score = (alpha * denoised - x_t) / sigma^2.

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations, ICLR, Eq. (6).
        Karras, Aittala, Aila & Laine (2022), Elucidating the Design Space, NeurIPS, Eq. (6) (the share of noise).
    """
    step, g = t - s, process.diffusion(t)
    gain = step * g**2 * (1 + noise**2) / 2 / process.sigma(t) ** 2
    return 1 - step * process.drift(t) - gain, gain * process.alpha(t), noise * g * torch.sqrt(step)


def exponential(process: Process, t: Tensor, s: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """The reverse equation solved exactly for a prediction of the data that does not change within the step.

    The equation of `euler_maruyama` in y = x / alpha and nu = sigma / alpha is dy = (1 + noise^2) (y - data) / nu dnu +
    noise sqrt(2 nu) dW, linear in y: with h the gain of log(alpha / sigma) in the step and c = noise^2,

        x_s = sigma_s / sigma_t e^(-c h) x_t + alpha_s (1 - e^(-(1 + c) h)) data + sigma_s sqrt(1 - e^(-2 c h)) N(0, I).

    It is the ancestral step at noise = 1 and noise = 0, and takes any amount of noise.

    References:
        Lu, Zhou, Bao, Chen, Li & Zhu (2022), DPM-Solver++, arXiv 2211.01095, section 6 (noise = 1, first order).
        Zhang & Chen (2023), Fast Sampling of Diffusion Models with Exponential Integrator, ICLR.
    """
    alpha_s, sigma_s, sigma_t = process.alpha(s), process.sigma(s), process.sigma(t)
    ratio = process.alpha(t) * sigma_s / (alpha_s * sigma_t)  # e^-h; 0 where a step ends without noise
    churn = noise**2
    return (
        sigma_s / sigma_t * ratio**churn,
        alpha_s * (1 - ratio ** (1 + churn)),
        sigma_s * torch.sqrt(1 - ratio ** (2 * churn)),
    )


INTEGRATORS: dict[str, Integrator] = {
    "ancestral": ancestral,
    "ddim": ancestral,
    "euler-maruyama": euler_maruyama,
    "exponential": exponential,
}


def transitions(
    process: Process,
    steps: int | Tensor | Transitions,
    integrator: str = "ancestral",
    noise: float = 1.0,
    *,
    still: bool = False,
) -> Transitions:
    """The table of a sampler.

    Args:
        process: the noising process that is walked back.
        steps: how many steps over the process's own grid; the falling times themselves (K + 1,); or a table, made with
            `few_steps.learned_steps` or by hand, which is taken as it is.
        integrator: "ancestral" (also called "ddim"), "euler-maruyama" or "exponential".
        noise: how much noise a step draws, relative to the integrator's own.
        still: whether steps without noise are allowed, for samplers that weigh nothing.

    Raises:
        ValueError: a step without noise where that is not allowed: it has no density, so neither weights nor resampling
            can use it.
        UnknownName: another integrator.
    """
    if integrator not in INTEGRATORS:
        raise UnknownName("integrator", integrator, INTEGRATORS)
    if isinstance(steps, Transitions):
        return _noisy(steps, still)
    if isinstance(steps, float | str) or steps is None:
        raise TypeError(f"steps must be a whole number, the falling times (K + 1,), or a table, not {steps!r}")
    times = process.times(int(steps)) if isinstance(steps, Integral) else falling(steps, process)
    if not (noise > 0 or (still and noise == 0)):
        raise ValueError(_without_noise(f"noise={noise}"))
    keep, pull, std = INTEGRATORS[integrator](process, times[:-1], times[1:], noise)
    return _noisy(Transitions(times, keep, pull, std), still)


def _noisy(table: Transitions, still: bool) -> Transitions:
    """The table, unless a step without noise is not allowed."""
    quiet = torch.nonzero(~(table.std > 0)).flatten().tolist()
    if quiet and not still:
        times = table.times
        where = [f"{float(times[k]):.4g} -> {float(times[k + 1]):.4g}" for k in quiet[:3]]
        raise ValueError(_without_noise(f"the transition of step {quiet[0] + 1} (t: {', '.join(where)}) has no noise"))
    return table


def _without_noise(what: str) -> str:
    return (
        f"{what}: a step without noise moves every copy of a particle to the same place, so the law of a step has no "
        "density: a guided step could not be weighted against the reference, and resampled particles would never "
        "separate again. Use noise > 0 and end the grid above the time where sigma = 0 (the last denoising needs no "
        'step: final="denoised" does it)'
    )


def falling(times: Any, process: Process) -> Tensor:
    """Times that a user gave, (K + 1,) float64.

    Raises:
        ShapeError, ValueError: they do not fall, or lie outside of the process.
    """
    times = torch.as_tensor(times, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or not bool((times[1:] < times[:-1]).all()):
        raise ShapeError(f"times must be a falling vector of at least 2 numbers, from noise to data, not {times}")
    if float(times[0]) > process.t_max or float(times[-1]) < 0:
        raise ValueError(f"times must lie in [0, {process.t_max}], not from {times[0]:.4g} to {times[-1]:.4g}")
    return times
