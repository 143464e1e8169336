"""Whether the images of a measurement all come of one start, and whether the scale that guided them is the data's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.genealogy import spread
from motes.core.particles import Particles
from motes.core.parts import in_parts
from motes.core.remark import ALL, Remark
from motes.core.weights import normalise
from motes.diffusion.coupling import carried
from motes.diffusion.denoiser import Denoiser
from motes.rng import Rng

FEW = 2.0
"""The effective number of starts below which a population has collapsed."""
MANY = 8
"""Particles from which that is worth a word."""
SAMPLES, STEPS = 16, 25
"""Samples, and steps of Heun's rule that make each, by which the data's spread is found."""
OTHER = 1.5
"""How many times larger or smaller than the data's spread a scale is another one."""


def collapse_remarks(
    denoiser: Denoiser, particles: Particles, scale: float | None, micro_batch: int | None
) -> list[Remark]:
    """What a run conditioned on a measurement has to say where hardly more than one start is left.

    The spread of the data is found by a few samples of the probability flow, only where it is asked for.

    Args:
        denoiser: the prior.
        particles: the last ones.
        scale: the standard deviation of the data that guidance took for granted; None if it took none.
        micro_batch: images a call.
    """
    if particles.n < MANY:
        return []
    families = 1 / spread(particles.root, normalise(particles.log_weight))
    if families >= FEW:
        return []
    text = (
        f"the images descend from {families:.1f} of {particles.n} starts in effective number: the measurement chose "
        "among particles that the guidance had not brought together, and the images are nearly copies. Take more "
        "particles, more steps, or a measurement with more noise"
    )
    if scale is not None:
        found = data_scale(denoiser, particles.x["state"][:1], micro_batch)
        if not 1 / OTHER < scale / found < OTHER:
            text += f"; scale={scale:.3g} was given, and the data of the model spread by about {found:.2g}: give that"
    return [Remark(text, ALL)]


def data_scale(denoiser: Denoiser, like: Tensor, micro_batch: int | None = None) -> float:
    """The standard deviation of a model's data about their mean, over all numbers of an image, by a few samples.

    Args:
        denoiser: the model.
        like: (1, *shape) of the type and on the device of the images.
        micro_batch: images a call.
    """

    def ask(x: Tensor, t: float) -> Tensor:
        with torch.no_grad():
            return in_parts(lambda part: denoiser.data(part, t), micro_batch, x)

    noise = Rng(0).at("scale").normal((SAMPLES, *like.shape[1:]), dtype=like.dtype).to(like.device)
    _, data = carried(denoiser.process, denoiser.process.start_std * noise, STEPS, ask)
    flat = data.flatten(1).to(torch.float64)
    return max(math.sqrt(float((flat - flat.mean(0)).square().sum(0).mean()) / (SAMPLES - 1)), 1e-300)
