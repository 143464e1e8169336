"""Optimal control of a sampler towards a reference: in closed form for a quadratic cost, else by proximal steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.diffusion.evaluation.checks import checked_reward
from motes.diffusion.evaluation.context import Guidance, StepContext, Twist, guidances, slope_of
from motes.errors import MotesError, ShapeError


@guidances.register
@dataclass(frozen=True, eq=False)
class ReferenceControl(Twist):
    """The cost (strength / 2) |x_0 - image|^2 at the end, and the value of a state under it.

    For normal data of variance `scale`^2 the value is exact: with D the denoised prediction and V = scale^2 sigma^2 /
    (alpha^2 scale^2 + sigma^2) the variance that is left, log E[exp(-cost)] =
    -strength |D - image|^2 / (2 (1 + strength V)) - d/2 log(1 + strength V), and its gradient is the optimal control.
    Otherwise it is a guess that the weights make up for. Give it as `twist`, its `reward` as the reward, and
    guidance="reward".

    Args:
        image: the reference, of the shape of one image.
        strength: the weight of the cost, nats per squared unit.
        scale: the standard deviation of the data about its mean.

    References:
        Rout, Chen, Ruiz, Kumar, Caramanis, Shakkottai & Chu (2025), RB-Modulation: Training-Free Stylization using
        Reference-Based Modulation, ICLR, section 4 (the control for a quadratic terminal cost).
    """

    image: Tensor
    _: KW_ONLY
    strength: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.strength > 0 or not self.scale > 0:
            raise MotesError(f"strength and scale must be positive, not {self.strength} and {self.scale}")

    @property
    def data_scale(self) -> float:
        return self.scale

    def reward(self, images: Tensor) -> Tensor:
        """Minus the cost of images (n, *shape), (n,) nats."""
        return -0.5 * self.strength * self._far(images)

    def __call__(self, context: StepContext) -> Tensor:
        left = 1 + self.strength * variance_left(context, self.scale)
        return -0.5 * self.strength / left * self._far(context.denoised) - 0.5 * self.image.numel() * math.log(left)

    def _far(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.image.shape:
            raise ShapeError(f"the reference is {tuple(self.image.shape)}, the images are {tuple(images.shape[1:])}")
        return (images - self.image.to(images)).to(torch.float64).square().flatten(1).sum(1)


def variance_left(context: StepContext, scale: float) -> float:
    """The variance of x_0 given x_t, for normal data of standard deviation `scale`."""
    return scale**2 * context.sigma**2 / (context.alpha**2 * scale**2 + context.sigma**2)


@guidances.register
@dataclass(frozen=True)
class Modulation(Guidance):
    """The prediction is pulled to argmin_z cost(z) + |z - prediction|^2 / 2, found by gradient descent from it.

    Needs no gradient of the denoiser; the cost may compare features. The rate falls linearly to zero over the steps.
    Where steps are weighed, a move that does not shrink with the step's noise would leave no weight worth having: there
    it is a drift along the way to the minimum, which is minus the gradient of the cost's Moreau envelope at the
    prediction, times the derivative that the prediction has for data of unit variance.

    Args:
        cost: maps images (n, *shape) to (n,).
        rate: of the descent, at the first step.
        iterations: descent steps.

    References:
        Rout et al. (2025), RB-Modulation, ICLR, Algorithm 2 (the proximal controller; there by Adam).
    """

    cost: Callable[[Tensor], Tensor]
    _: KW_ONLY
    rate: float = 0.1
    iterations: int = 20

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.iterations < 1:
            raise MotesError(f"need rate > 0 and iterations >= 1, not {self.rate} and {self.iterations}")

    @property
    def graph(self) -> bool:
        return False

    def __call__(self, context: StepContext) -> Tensor:
        z = start = context.denoised.detach()
        rate = self.rate * (1 - context.step / (len(context.times) - 1))
        for _ in range(self.iterations):
            with torch.enable_grad():
                z = z.requires_grad_()
                value = checked_reward(self.cost(z), len(z), "cost")
                slope = slope_of(value, z, "cost")
            z = (z - rate * (slope + z - start)).detach()
        if context.weighed:
            return context.shift(context.alpha / (context.alpha**2 + context.sigma**2) * (z - start))
        return context.pull * (z - start)

    def probe(self, images: Tensor, t: float) -> Tensor:
        return self.cost(images)
