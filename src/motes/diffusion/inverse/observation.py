"""What was measured of an image, as a reward, as a twist and as guidance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.weights import normalise
from motes.diffusion.arguments import check_tensors
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.context import StepContext, Twist
from motes.diffusion.guidance.control import variance_left
from motes.diffusion.inverse.operator import LinearOperator
from motes.diffusion.sampling.reverse import ReverseDiffusion
from motes.errors import MotesError, ShapeError, check_positive


@dataclass(frozen=True, eq=False)
class Observation(Twist):
    """y = A(x_0) + std * N(0, I): its log-likelihood, and a guess of it given a noisy state.

    On the way the likelihood of y is taken as that of N(A(D), spread A A' + std^2 I) with D the denoised prediction
    and spread = scale^2 sigma^2 / (alpha^2 scale^2 + sigma^2), exact for normal data of covariance scale^2 I; constants
    that are the same for all particles are left out. Its gradient through the denoiser is pseudo-inverse guidance. The
    weights make up for what is not exact.

    Args:
        operator: a `LinearOperator`, or any differentiable function of images (n, *shape), not linear, for which A A'
            is replaced by the identity times `gain`.
        y: (*out) the measurement.
        std: the standard deviation of its noise.
        scale: the standard deviation of the data about its mean; where it is not the same in all directions, the
            largest that the operator sees, since guidance that takes it for smaller overshoots and diverges.
        gain: for functions: the squared size of the function's derivative.

    Raises:
        ValueError: a std or scale that is not positive; a measurement that is not finite.
        ShapeError: the operator gives another shape than y has.

    References:
        Song, Vahdat, Mardani & Kautz (2023), Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR, Eq. 7.
        Wu et al. (2023), Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, NeurIPS, 3.3.
    """

    operator: LinearOperator | Callable[[Tensor], Tensor]
    y: Tensor
    std: float
    _: KW_ONLY
    scale: float = 1.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        check_positive(std=self.std, scale=self.scale, gain=self.gain)
        check_tensors(y=self.y)
        if self.y.is_complex() or not bool(torch.isfinite(self.y).all()):
            raise MotesError("the measurement y must be real numbers, all finite; leave out what was not measured")

    @property
    def data_scale(self) -> float:
        return self.scale

    def reward(self, images: Tensor) -> Tensor:
        """The log-likelihood of the measurement given images (n, *shape), (n,) nats, with its normalising constant."""
        residual = self._residual(images).to(torch.float64).reshape(len(images), -1)
        constant = residual.shape[1] * (math.log(self.std) + 0.5 * math.log(2 * math.pi))
        return -0.5 * residual.square().sum(1) / self.std**2 - constant

    def __call__(self, context: StepContext) -> Tensor:
        residual = self._residual(context.denoised)
        noise, spread = self.std**2, variance_left(context, self.scale)
        if isinstance(self.operator, LinearOperator):
            with torch.no_grad():
                solved = self.operator.solve(residual.detach(), noise, spread)
        else:
            solved = residual.detach() / (spread * self.gain + noise)
        # The quadratic form r' M r / 2 and its gradient M r, without differentiating the solver.
        product = (residual * solved).to(torch.float64).reshape(len(residual), -1).sum(1)
        return 0.5 * product.detach() - product

    def probe(self, images: Tensor, t: float) -> Tensor:
        return self._residual(images)

    def remarks(self, reward: Tensor, log_weight: Tensor) -> list[str]:
        m = self.y.numel()
        constant = m * (math.log(self.std) + 0.5 * math.log(2 * math.pi))
        weight = normalise(log_weight)
        misfit = -2 * float((weight * (reward + constant).where(weight > 0, torch.zeros_like(reward))).sum()) / m
        if misfit <= 1 + max(3.0, 10 * math.sqrt(2 / m)):  # about 1, with a spread of sqrt(2 / m), if they fit
            return []
        return [
            f"the images do not fit the measurement: their squared residuals are {misfit:.3g} times the variance of "
            "the noise. Guidance that overshoots does this (take `scale` as large as the largest standard deviation "
            "of the data, weaker guidance, or more steps); so does too little of it (more particles), or a "
            "measurement that the model does not know"
        ]

    def _residual(self, images: Tensor) -> Tensor:
        seen = self.operator.apply(images) if isinstance(self.operator, LinearOperator) else self.operator(images)
        if seen.shape[1:] != self.y.shape:
            raise ShapeError(
                f"the operator returns shape {tuple(seen.shape[1:])}, the measurement has {tuple(self.y.shape)}"
            )
        return self.y.to(seen) - seen


def posterior(
    denoiser: Denoiser, steps: int | Tensor, observation: Observation, *, shape: tuple[int, ...], **knobs: Any
) -> ReverseDiffusion:
    """The images behind a measurement: weighted samples, and log p(y) as the log normaliser.

    Its error bar carries what the particles, the length of the steps and the noise at the last time leave unknown.

    Args:
        denoiser: the prior.
        steps: the number of steps, or the falling times.
        observation: what was measured.
        shape: of one image.
        knobs: as for `ReverseDiffusion`; guidance is by the observation unless given otherwise.
    """
    knobs = {"guidance": "reward", **knobs}
    return ReverseDiffusion(denoiser, steps, reward=observation.reward, shape=shape, twist=observation, **knobs)
