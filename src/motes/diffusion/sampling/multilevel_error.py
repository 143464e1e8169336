"""What coarse paths beside the particles say of a run: how far its normaliser is off, and which means steps move."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.particles import Particles
from motes.core.remark import ALL, MEANS, Remark
from motes.core.weights import log_mean_exp, normalise
from motes.diffusion.sampling.multilevel import SHORT, STRIDE, Coarse

FEWEST = 2
"""Fewer coarse paths than this tell nothing."""


def systematic(coarse: Coarse | None, particles: Particles) -> Systematic | None:
    """How far the log normaliser is off by the finite steps and by the noise that is left at the last time."""
    if coarse is None:
        return None
    leaf, steps = particles.x["coarse"], coarse.fine.steps
    on = leaf["on"]
    own = particles.log_weight[on]
    if int(on.sum()) < FEWEST or not float(own.max()) > -math.inf:
        return Systematic(math.nan, 0.0, UNKNOWN)
    if coarse.short:
        return Systematic(math.nan, 0.0, too_few(steps))
    if not float(leaf["log_weight"][on].max()) > -math.inf:
        return Systematic(math.nan, 0.0, TOO_COARSE)
    coarser, noise = _compared(leaf["log_weight"][on], own)
    rest = coarse.rest
    left, shake = _left_over(leaf["base"][on], particles.x["reward"][on], leaf["plus"][on], leaf["minus"][on])
    step = abs(rest * coarser)
    mend = f"{steps} steps err by about {step:.2g} nats (steps of thrice the length differ by {coarser:+.2g})"
    if abs(left) > step:
        mend = f"the noise that is left at the last time is worth about {abs(left):.2g} nats"
    text = (
        f"the log normaliser is that of the chain of {steps} steps, and differs from the model's own by more than the "
        f"particles' error: {mend}; the error bar says so. Use more steps"
        + (", or times that end at less noise" if abs(left) > step else "")
    )
    sure = max(coarse.least * (abs(coarser) - 2 * noise), abs(left) - 2 * shake)
    return Systematic(math.hypot(step, left), sure, text)


UNKNOWN = (
    "no particle with a coarse path is left, so nothing is known of the error that finite steps make: use more "
    "particles, or a smaller `coarse`"
)
TOO_COARSE = (
    "no path with steps of thrice the length has any weight at the end, so nothing is known of the error that the "
    "steps make, which are too few: use more"
)


def too_few(steps: int) -> str:
    """What is said of a chain so short that a coarser one tells nothing of its error, not even that it is small."""
    return (
        f"{steps} steps are too few to know their error: steps of thrice the length, fewer than {SHORT}, may be off as "
        f"much. Use at least {STRIDE * (SHORT - 1) + 1} steps"
    )


def _left_over(base: Tensor, reward: Tensor, plus: Tensor, minus: Tensor) -> tuple[float, float]:
    """How the log normaliser would change if images had the noise that is left, nats, and its standard error.

    Of the rewards of images moved both ways the second difference and the squared first one make the first term in the
    covariance of the move, which does not grow with what a sharp reward would say of each moved image by itself. Where
    a reward excludes images it has no such term, and what is left of the weights is compared.

    Args:
        base, reward, plus, minus: (M,) log-weights without the reward, and the rewards of images as they are and moved.
    """
    if not bool(torch.isfinite(torch.stack([reward, plus, minus])).all()):
        return _compared(base + torch.logaddexp(plus, minus) - math.log(2), base + reward)
    weight = normalise(base + reward)
    change = 0.5 * (plus + minus - 2 * reward) + 0.125 * (plus - minus).square()
    mean = weight @ change
    return float(mean), float((weight.square() @ (change - mean).square()).sqrt())


def _compared(other: Tensor, own: Tensor) -> tuple[float, float]:
    """log sum exp(other) - log sum exp(own), nats, and its standard error from the paths, both (M,)."""
    if not float(other.max()) > -math.inf:
        return 0.0, 0.0
    a, b = normalise(other), normalise(own)
    return log_mean_exp(other) - log_mean_exp(own), float((a - b).square().sum().sqrt())


def coarse_level(coarse: Coarse | None, particles: Particles) -> CoarseLevel | None:
    """The images of the coarse paths, for the error bars of means."""
    if coarse is None:
        return None
    leaf = particles.x["coarse"]
    row = leaf["on"].nonzero().flatten()
    image = leaf["denoised"].detach()
    return CoarseLevel(image[row.to(image.device)], leaf["log_weight"][row], row, coarse.rest)


def remarks(coarse: Coarse | None, particles: Particles, image: Tensor) -> list[str]:
    """What is to be said of means and mean squares of image numbers that the steps move by more than chance."""
    if coarse is None:
        return []
    leaf, on = particles.x["coarse"], particles.x["coarse"]["on"]
    doubts = MEANS if coarse.observer.reward is None else ALL
    found = systematic(coarse, particles)
    if found is not None and math.isnan(found.value):
        many = particles.n >= FEWEST * coarse.every  # else the estimates say why they have no error bars
        return [Remark(found.text, doubts, withholds=True)] if many else []
    own, other = particles.log_weight[on], leaf["log_weight"][on]
    whole, a, b = normalise(particles.log_weight), normalise(other), normalise(own)
    flat = image.detach().flatten(1).to(torch.float64).cpu()
    mean = whole @ flat
    std = (whole @ (flat - mean).square()).sqrt().clamp(min=1e-300)
    rest, worst = coarse.least, 0.0
    level = 2 + math.sqrt(2 * math.log(2 * flat.shape[1]))
    mine = (flat[on] - mean) / std
    theirs = (leaf["denoised"][on].detach().flatten(1).to(torch.float64).cpu() - mean) / std
    for power in (1, 2):
        f, g, h = theirs**power, mine**power, ((flat - mean) / std) ** power
        change = a @ f - b @ g
        each = a[:, None] * (f - a @ f) - b[:, None] * (g - b @ g)
        noise = each.square().sum(0).sqrt().clamp(min=1e-300)
        bar = (whole.square() @ (h - whole @ h).square()).sqrt().clamp(min=1e-300)
        sure = rest * (change.abs() - level * noise)
        worst = max(worst, float((sure / bar).max()))
    if worst <= 1:
        return []
    return [
        Remark(
            f"the images are those of the chain of {coarse.fine.steps} steps: their means or mean squares differ from "
            f"the model's own by at least {worst:.2g} times the particles' error, as steps of thrice the length show. "
            "Use more steps",
            MEANS,
        )
    ]
