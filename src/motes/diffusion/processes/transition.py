"""The Gaussian transitions of a reverse sampler, as a table of numbers.

A step from time t to an earlier time s draws

    x_s = keep * x_t + pull * denoised(x_t, t) + back * (denoised(x_t, t) - the step before's) + std * N(0, I)

and an integrator is nothing but a rule for the numbers; `back` is zero for those of first order. That the transition is
a normal law with a known standard deviation is what makes weights exact: moving the mean by `std * shift` multiplies
the law of the noise xi that was drawn by exp(-shift . xi - |shift|^2 / 2), at any step size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from motes.core.files.settings import digest
from motes.diffusion.processes.process import Process
from motes.errors import MotesError, ShapeError, WrongType, check_name
from motes.rng import Rng


@dataclass(frozen=True)
class Transitions:
    """The K steps of a sampler.

    Attributes:
        times: (K + 1,) float64, falling.
        keep, pull, std: (K,) float64, the coefficients of x_t, of the denoised prediction and of the noise.
        back: (K,) float64, the coefficient of the prediction's change since the step before, 0 at the first; None for
            integrators that do not look back.
    """

    times: Tensor
    keep: Tensor
    pull: Tensor
    std: Tensor
    back: Tensor | None = None

    @property
    def steps(self) -> int:
        """The number of steps K."""
        return len(self.std)

    @property
    def digest(self) -> str:
        """A few letters that tell these steps from others."""
        return digest(self.times, self.keep, self.pull, self.std, *([] if self.back is None else [self.back]))

    def mean(self, k: int, state: Tensor, denoised: Tensor, previous: Tensor | None = None) -> Tensor:
        """The mean of step k of the states and their predictions, both (N, *shape): a tensor that is the caller's.

        Args:
            previous: like the states, the predictions at the step before, for a table that looks back; None at the
                first step.
        """
        mean = (float(self.keep[k]) * state).add_(float(self.pull[k]) * denoised)
        if self.back is None or previous is None:
            return mean
        return mean.add_(float(self.back[k]) * (denoised - previous))

    def guided_step(self, rng: Rng, k: int, x: dict[str, Tensor], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """The states after step k, and the log of the plain transition's density over the guided one's.

        Args:
            rng: the address of the step.
            k: the number of steps done.
            x: what the evaluator said of the particles: "state" and "denoised" (N, *shape); where there is guidance
                "shift" like them, how far it moves the mean; and "previous", the predictions of the step before.
            share: what multiplies the shift.

        Returns:
            The states (N, *shape), and (N,) float64, nats: zero without guidance.
        """
        old, std = x["state"], float(self.std[k])
        xi = rng.at("noise").normal(tuple(old.shape), dtype=old.dtype).to(old.device)
        log_ratio = torch.zeros(len(old), dtype=torch.float64)
        if "shift" in x:
            shift = x["shift"] * (share / std)
            log_ratio = log_reference_over_guided(xi, shift)
            xi.add_(shift)
        return self.mean(k, old, x["denoised"], x.get("previous")).add_(xi.mul_(std)), log_ratio


def log_reference_over_guided(xi: Tensor, shift: Tensor) -> Tensor:
    """(N,) log of N(xi + shift; 0, I) / N(xi; 0, I), nats: the weight of a transition whose mean is moved.

    The discrete form of Girsanov's theorem, exact at any step size; xi is the noise drawn, both are (N, ...) in
    standard deviations of the transition.
    """
    xi, shift = xi.to(torch.float64).flatten(1), shift.to(torch.float64).flatten(1)
    return -(0.5 * shift).add_(xi).mul_(shift).sum(1).cpu()


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
        raise MotesError(f"noise={noise} asks for more variance than the process has at some step; at most 1 fits")
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
    "multistep": exponential,
}
ORDER = {"multistep": 2}
"""By which power of a step's length the laws of an integrator's images err; 1 for those that are not listed."""


def corrections(process: Process, times: Tensor, keep: Tensor, noise: float) -> Tensor:
    """(K,) what makes of exponential steps ones of second order: the coefficients of the prediction's change.

    The exponential step takes the prediction D from its beginning, so its law has the right mean, but lacks the
    variance that the prediction gains on the way. Once D is known at its end, the state is moved by
    kappa * alpha * (D_end - D_beginning): with h the gain of log(alpha / sigma) in the step and c = noise^2,

        kappa = e^((1 + c) h / 2) - 1, at most 1,

    which is (1 + c) h / 2 for small h, the trapezoid's rule, and at c = 1 puts the whole variance right where the data
    is as spread as the noise allows. The next step begins at the moved state with the prediction that is there, so
    that a step asks the model once, and is a normal law given the last two predictions.

    References:
        Lu et al. (2022), DPM-Solver++, arXiv 2211.01095, section 6 (two-step stochastic solvers).
        Zhao, Bai, Rao, Zhou & Lu (2023), UniPC, NeurIPS, section 3 (correcting without asking again).
    """
    level = torch.exp(-process.log_snr(times))  # sigma / alpha
    kappa = ((level[:-2] / level[1:-1]) ** (0.5 * (1 + noise**2)) - 1).clamp(max=1.0)
    return torch.cat([torch.zeros_like(keep[:1]), keep[1:] * process.alpha(times[1:-1]) * kappa])


def transitions(
    process: Process,
    steps: int | Tensor | Transitions,
    *,
    integrator: str = "ancestral",
    noise: float = 1.0,
    still: bool = False,
    history: bool = False,
) -> Transitions:
    """The table of a sampler.

    Args:
        process: the noising process that is walked back.
        steps: how many steps, over the process's own grid or, for "multistep", over equal gains of log(alpha / sigma)
            where the process's own are equal steps in t; the falling times themselves (K + 1,); or a table, made with
            `few_steps.learned_steps` or by hand, which is taken as it is.
        integrator: "ancestral" (also called "ddim"), "euler-maruyama", "exponential" or "multistep".
        noise: how much noise a step draws, relative to the integrator's own.
        still: whether steps without noise are allowed, for samplers that weigh nothing.
        history: whether the sampler keeps the predictions of the step before, which "multistep" needs.

    Raises:
        ValueError: a step without noise where that is not allowed: it has no density, so neither weights nor resampling
            can use it.
        UnknownName: another integrator, or one that looks back where the sampler does not.
    """
    legal = [name for name in INTEGRATORS if history or name != "multistep"]
    check_name("integrator", integrator, legal)
    if isinstance(steps, Transitions):
        if steps.back is not None and not history:
            raise MotesError("this sampler does not keep the step before, which the given table of steps looks back at")
        return _noisy(steps, still)
    if isinstance(steps, float | str) or steps is None:
        raise WrongType(f"steps must be a whole number, the falling times (K + 1,), or a table, not {steps!r}")
    times = _grid(process, int(steps), integrator) if isinstance(steps, Integral) else falling(steps, process)
    if not (noise > 0 or (still and noise == 0)):
        raise MotesError(_without_noise(f"noise={noise}"))
    keep, pull, std = INTEGRATORS[integrator](process, times[:-1], times[1:], noise)
    back = corrections(process, times, keep, noise) if integrator == "multistep" else None
    return _noisy(Transitions(times, keep, pull, std, back), still)


def _grid(process: Process, steps: int, integrator: str) -> Tensor:
    """The process's own times, but for "multistep" where these are equal steps in t: equal ones in log(alpha / sigma).

    What a step of second order lacks goes by its gain of log(alpha / sigma), whatever the data; equal steps in t make
    that gain large where there is little noise.
    """
    if integrator == "multistep" and process.spacing == "time" and float(process.sigma(process.t_min)) > 0:
        return process.times(steps, "snr")
    return process.times(steps)


def _noisy(table: Transitions, still: bool) -> Transitions:
    """The table, unless a step without noise is not allowed."""
    quiet = torch.nonzero(~(table.std > 0)).flatten().tolist()
    if quiet and not still:
        times = table.times
        where = [f"{float(times[k]):.4g} -> {float(times[k + 1]):.4g}" for k in quiet[:3]]
        raise MotesError(_without_noise(f"the transition of step {quiet[0] + 1} (t: {', '.join(where)}) has no noise"))
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
        raise MotesError(f"times must lie in [0, {process.t_max}], not from {times[0]:.4g} to {times[-1]:.4g}")
    return times
