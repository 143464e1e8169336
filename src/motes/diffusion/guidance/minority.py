"""Self-guided sampling of what a model finds rare."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.context import Guidance, StepContext, guidances
from motes.errors import MotesError
from motes.rng import Rng
from motes.rng.seed import seeded


@guidances.register
@dataclass(frozen=True)
class Minority(Guidance):
    """A drift towards images that the model loses when it noises and denoises them again: low-density samples.

    The metric is the squared distance of the prediction from the prediction of its own noised copy (the second held
    fixed). For normal data it is a quadratic about the mean, so the drift points away from it. It is a heuristic that
    leaves the model's law: for a stated target use `rarity` as a reward, with this as guidance or without.

    Args:
        scale: what multiplies the gradient.
        level: log(alpha / sigma) of the noise that the copy gets.
        every: the drift acts at each `every`-th step.
        until: the share of steps after which it stops.

    References:
        Um & Ye (2024), Self-Guided Generation of Minority Samples Using Diffusion Models, ECCV, section 3.
    """

    scale: float = 1.0
    _: KW_ONLY
    level: float = 0.0
    every: int = 1
    until: float = 0.9

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 < self.until <= 1:
            raise MotesError(f"need every >= 1 and 0 < until <= 1, not {self.every} and {self.until}")

    def __call__(self, context: StepContext) -> Tensor:
        if context.step % self.every or context.step >= self.until * (len(context.times) - 1):
            return torch.zeros_like(context.x)
        with torch.no_grad():
            again = _again(context.denoiser, context.denoised.detach(), self.level, context.rng)
        value = (context.denoised - again).flatten(1).square().sum(1)
        return context.shift(self.scale * context.gradient(value, "metric"))


def rarity(denoiser: Denoiser, images: Tensor, *, seed: int | Rng, level: float = 0.0, shared: bool = False) -> Tensor:
    """(N,) the squared distance of images (N, *shape) from what the model makes of them, noised once and denoised.

    As a reward (times what it should count, with a fixed `seed`) it tilts a model's law towards what it finds rare;
    give shared=True then, so that it depends on the image alone, and not on its place in a batch.

    Args:
        denoiser: the model.
        images: (N, *shape).
        seed: a whole number or an Rng, of the noise.
        level: log(alpha / sigma) of the noise.
        shared: one noise for all images instead of one each.

    References:
        Um & Ye (2024), Self-Guided Generation of Minority Samples Using Diffusion Models, ECCV, section 3.
    """
    rng = seeded(seed)
    return (images - _again(denoiser, images, level, rng, shared)).flatten(1).square().sum(1)


def _again(denoiser: Denoiser, images: Tensor, level: float, rng: Rng, shared: bool = False) -> Tensor:
    process = denoiser.process
    t = float(process.time(level))
    shape = (1, *images.shape[1:]) if shared else tuple(images.shape)
    noise = rng.at("copy").normal(shape, dtype=images.dtype).to(images.device)
    return denoiser.data(float(process.alpha(t)) * images + float(process.sigma(t)) * noise, t)
