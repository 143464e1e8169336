"""Training-free guidance: one family of rules of which the published ones are corners."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from motes.diffusion.evaluation.checks import checked_reward
from motes.diffusion.evaluation.context import Guidance, StepContext, guidances, slope_of
from motes.errors import MotesError, check_at_least, check_name

Shape = Literal["increase", "decrease", "constant", "variance"]
SHAPES = ("increase", "decrease", "constant", "variance")
PUBLISHED: tuple[Shape, Shape, Shape] = ("increase", "increase", "decrease")
WEIGHED: tuple[Shape, Shape, Shape] = ("variance", "variance", "decrease")


@guidances.register
@dataclass(frozen=True)
class TrainingFree(Guidance):
    """Gradients of the reward of the prediction: through the denoiser, at the prediction, and over a cloud around it.

    With z the denoised prediction of x_t, and f~(z) = log mean_j exp(reward(z + e_j)), e_j ~ N(0, smooth_t^2 I), the
    mean of the step from t to s moves by

        (alpha_s / alpha_t) rho_t grad_x f~(z(x))  +  alpha_s * (mu_t times the sum of grad f~ along `iterations` steps
                                                                 of gradient ascent from z),

    in the scale where alpha^2 + sigma^2 = 1 (other processes are brought to it). Each knob's strength over time has
    mean one; "increase" goes with alpha_t^2 / alpha_s^2, "decrease" with one minus it. Under `Guided`, with `repeats`,
    this is the published algorithm. Under `ReverseDiffusion` it is a proposal whose weights are exact; there a shift
    that does not shrink with the step's noise would leave no weight worth having, so rho and mu multiply the step's
    variance ("variance", which has no mean of one).

    Args:
        rho: the gradient through the denoiser ("variance guidance"); 0 leaves the backward pass out.
        mu: the ascent at the prediction ("mean guidance"); 0 leaves it out.
        smooth: the standard deviation of the cloud; 0 is the prediction alone.
        samples: points of the cloud.
        iterations: steps of the ascent.
        shapes: how rho, mu and smooth go with time: "increase", "decrease", "constant" or "variance" each; None is
            increase, increase, decrease under `Guided`, and variance, variance, decrease where steps are weighed.
        reward: maps images (n, *shape) to (n,); None takes the sampler's.

    Raises:
        ValueError: a negative knob, or fewer than one sample or iteration.
        UnknownName: another shape.

    References:
        Ye, Lin, Han, Xu, Liu, Liang, Ma, Zou & Ermon (2024), TFG: Unified Training-Free Guidance for Diffusion Models,
        NeurIPS, Algorithm 1 and section 4 (the defaults).
    """

    rho: float = 0.0
    _: KW_ONLY
    mu: float = 0.0
    smooth: float = 0.0
    samples: int = 4
    iterations: int = 1
    shapes: tuple[Shape, Shape, Shape] | None = None
    reward: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for name in ("rho", "mu", "smooth"):
            if not getattr(self, name) >= 0 or not math.isfinite(getattr(self, name)):
                raise MotesError(f"{name} must be at least 0, not {getattr(self, name)}")
        check_at_least(1, samples=self.samples, iterations=self.iterations)
        for shape in self.shapes or ():
            check_name("shape", shape, SHAPES)

    @property
    def graph(self) -> bool:
        return self.rho > 0

    def __call__(self, context: StepContext) -> Tensor:
        process = context.denoiser.process
        shapes = self.shapes or (WEIGHED if context.weighed else PUBLISHED)
        share = torch.sigmoid(2 * process.log_snr(context.times))  # alpha^2 where alpha^2 + sigma^2 = 1
        rho, mu, smooth = (
            knob * (context.gain if shape == "variance" else strength(share, shape, context.step))
            for knob, shape in zip((self.rho, self.mu, self.smooth), shapes, strict=True)
        )
        here, ahead = (float(share[k]) ** 0.5 for k in (context.step, context.step + 1))
        cloud = None
        if smooth:
            noise = context.rng.at("cloud").normal(
                (len(context.x), self.samples, *context.x.shape[1:]), dtype=context.x.dtype
            )
            cloud = smooth * noise.to(context.x.device)
        shift = torch.zeros_like(context.x)
        if rho:
            value = context.predicted if cloud is None and self.reward is None else None  # asked already, or not
            value = self._value(context, context.denoised, cloud) if value is None else value
            slope = context.gradient(value) * (
                context.alpha / here
            )  # with respect to x in the scale of alpha^2 + sigma^2 = 1
            shift = shift + ahead / here * rho * slope
        if mu:
            z = start = context.denoised.detach()
            for _ in range(self.iterations):
                with torch.enable_grad():
                    z = z.requires_grad_()
                    value = self._value(context, z, cloud)
                    slope = slope_of(value, z)
                z = (z + mu * slope).detach()
            shift = shift + ahead * (z - start)
        return shift * float(process.alpha(context.s)) / ahead

    def probe(self, images: Tensor, t: float) -> Tensor | None:
        return None if self.reward is None else self.reward(images)

    def _value(self, context: StepContext, z: Tensor, cloud: Tensor | None) -> Tensor:
        reward = self.reward or context.reward
        if reward is None:
            raise MotesError("training-free guidance needs a reward: give one to it or to the sampler")
        if cloud is None:
            return checked_reward(reward(z), len(z))
        n, m = cloud.shape[:2]
        values = checked_reward(reward((z[:, None] + cloud).flatten(0, 1)), n * m).reshape(n, m)
        return values.logsumexp(1) - math.log(m)


def strength(share: Tensor, shape: str, step: int) -> float:
    """What multiplies a knob at a step: mean one over the steps.

    Args:
        share: (K + 1,) the share of the data in x_t, alpha^2 / (alpha^2 + sigma^2), rising.
        shape: "increase", "decrease" or "constant".
        step: from 0 to K - 1.
    """
    ratio = share[:-1] / share[1:]
    values = {"increase": ratio, "decrease": 1 - ratio, "constant": torch.ones_like(ratio)}[shape]
    return float(values[step] / values.mean())


@guidances.register
def diffusion_posterior(rho: float = 1.0, **knobs: Any) -> TrainingFree:
    """The gradient of the predicted reward through the denoiser: diffusion posterior sampling.

    References:
        Chung, Kim, Mccann, Klasky & Ye (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems, ICLR.
    """
    return TrainingFree(rho=rho, **knobs)


@guidances.register
def manifold_preserving(mu: float = 1.0, **knobs: Any) -> TrainingFree:
    """The gradient at the prediction, without a backward pass through the denoiser.

    References:
        He, Murata, Lai, Takida, Uesaka, Kim, Liao, Mitsufuji, Kolter, Salakhutdinov & Ermon (2024), Manifold Preserving
        Guided Diffusion, ICLR.
    """
    return TrainingFree(mu=mu, **knobs)


@guidances.register
def loss_guided(rho: float = 1.0, *, smooth: float = 0.1, **knobs: Any) -> TrainingFree:
    """The gradient through the denoiser of the reward averaged over a cloud around the prediction.

    References:
        Song, Zhang, Yin, Mardani, Liu, Kautz, Chen & Vahdat (2023), Loss-Guided Diffusion Models for Plug-and-Play
        Controllable Generation, ICML.
    """
    return TrainingFree(rho=rho, smooth=smooth, **knobs)


@guidances.register
def freedom(rho: float = 1.0, **knobs: Any) -> TrainingFree:
    """The gradient through the denoiser, meant for `Guided(repeats=2)` or more.

    References:
        Yu, Wang, Zhao, Ghanem & Zhang (2023), FreeDoM: Training-Free Energy-Guided Conditional Diffusion Model, ICCV.
    """
    return TrainingFree(rho=rho, **knobs)


@guidances.register
def universal(rho: float = 1.0, *, mu: float = 1.0, **knobs: Any) -> TrainingFree:
    """Both gradients, meant for `Guided(repeats=2)` or more.

    References:
        Bansal, Chu, Schwarzschild, Sengupta, Goldblum, Geiping & Goldstein (2023), Universal Guidance for Diffusion
        Models, CVPR Workshops.
    """
    return TrainingFree(rho=rho, mu=mu, **knobs)
