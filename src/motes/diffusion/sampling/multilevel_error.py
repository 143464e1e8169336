"""What coarse paths beside the particles say of a run: how far its normaliser is off, and which means steps move."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from motes.core.estimate import student
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.particles import Particles
from motes.core.remark import ALL, MEANS, Remark
from motes.core.weights import log_mean_exp, normalise
from motes.diffusion.sampling.multilevel import Coarse
from motes.diffusion.short import too_few

FEWEST = 2
"""Fewer coarse paths than this tell nothing."""


def systematic(coarse: Coarse | None, particles: Particles) -> Systematic | None:
    """How far the log normaliser is off by the finite steps and by the noise that is left at the last time."""
    if coarse is None:
        return None
    leaf, steps = particles.x["coarse"], coarse.fine.steps
    on = leaf["on"]
    own, other = particles.log_weight[on], leaf["log_weight"][on]
    if int(on.sum()) < FEWEST or not float(own.max()) > -math.inf:
        return Systematic(math.nan, 0.0, UNKNOWN)
    if coarse.short:
        return Systematic(math.nan, 0.0, too_few(steps))
    if not float(other.max()) > -math.inf:
        return Systematic(math.nan, 0.0, TOO_COARSE)
    families = PathFamilies.of(particles.root[on], own, other)
    coarser, noise = _compared(other, own, families)
    left, shake = _left_over(leaf["base"][on], particles.x["reward"][on], leaf["plus"][on], leaf["minus"][on], families)
    step = abs(coarse.rest * coarser)
    mend = f"{steps} steps err by about {step:.2g} nats (steps of thrice the length differ by {coarser:+.2g})"
    if abs(left) > step:
        mend = f"the noise that is left at the last time is worth about {abs(left):.2g} nats"
    text = (
        f"the log normaliser is that of the chain of {steps} steps, and differs from the model's own by more than the "
        f"particles' error: {mend}; the error bar says so. Use more steps"
        + (", or times that end at less noise" if abs(left) > step else "")
    )
    level = families.reach(2.0)
    sure = max(0.0, coarse.least * (abs(coarser) - level * noise), abs(left) - level * shake)
    return Systematic(math.hypot(step, left), sure, text)


@dataclass(frozen=True)
class PathFamilies:
    """Which coarse paths descend from one particle: copies share what happened to them before, and count as one.

    Six copies of one path differ by hardly anything, and told of 90 errors of the particles where there was not one.

    Attributes:
        of_path: (M,) which family each path is of, from 0.
        count: their number.
        effective: how many there are in effect, of the weights of either level.
    """

    of_path: Tensor
    count: int
    effective: float

    @classmethod
    def of(cls, root: Tensor, *log_weight: Tensor) -> PathFamilies:
        """The families of paths with roots (M,) and log-weights (M,) by one level and the other."""
        names, of_path = root.unique(return_inverse=True)
        whole = cls(of_path, len(names), 0.0)
        shares = [whole.sums(normalise(w)) for w in log_weight]
        return replace(whole, effective=min(1 / float(share.square().sum()) for share in shares))

    def sums(self, value: Tensor) -> Tensor:
        """(F, ...) the sums over each family of a value (M, ...)."""
        return value.new_zeros((self.count, *value.shape[1:])).index_add_(0, self.of_path, value)

    def error(self, value: Tensor) -> Tensor:
        """(...) the standard error of a sum over the paths of contributions (M, ...) whose mean is 0."""
        return self.sums(value).square().sum(0).sqrt()

    def reach(self, deviations: float) -> float:
        """How many standard errors are as rare as that many normal deviations; infinite below two families."""
        if self.effective < FEWEST:
            return math.inf
        return student.quantile(math.erf(min(deviations, 8.0) / math.sqrt(2)), self.effective - 1)


UNKNOWN = (
    "no particle with a coarse path is left, so nothing is known of the error that finite steps make: use more "
    "particles, or a smaller `coarse`"
)
TOO_COARSE = (
    "no path with steps of thrice the length has any weight at the end, so nothing is known of the error that the "
    "steps make, which are too few: use more"
)


def _left_over(
    base: Tensor, reward: Tensor, plus: Tensor, minus: Tensor, families: PathFamilies
) -> tuple[float, float]:
    """How the log normaliser would change if images had the noise that is left, nats, and its standard error.

    Of the rewards of images moved both ways the second difference and the squared first one make the first term in the
    covariance of the move, which does not grow with what a sharp reward would say of each moved image by itself. Where
    a reward excludes images it has no such term, and what is left of the weights is compared.

    Args:
        base, reward, plus, minus: (M,) log-weights without the reward, and the rewards of images as they are and moved.
        families: of the images.
    """
    if not bool(torch.isfinite(torch.stack([reward, plus, minus])).all()):
        return _compared(base + torch.logaddexp(plus, minus) - math.log(2), base + reward, families)
    weight = normalise(base + reward)
    change = 0.5 * (plus + minus - 2 * reward) + 0.125 * (plus - minus).square()
    mean = weight @ change
    return float(mean), float(families.error(weight * (change - mean)))


def _compared(other: Tensor, own: Tensor, families: PathFamilies) -> tuple[float, float]:
    """log sum exp(other) - log sum exp(own), nats, and its standard error from the paths, both (M,)."""
    if not float(other.max()) > -math.inf:
        return 0.0, 0.0
    a, b = normalise(other), normalise(own)
    return log_mean_exp(other) - log_mean_exp(own), float(families.error(a - b))


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
    doubts = MEANS if coarse.evaluator.reward is None else ALL
    found = systematic(coarse, particles)
    if found is not None and math.isnan(found.value):
        many = particles.n > (FEWEST - 1) * coarse.every  # else the estimates say why they have no error bars
        return [Remark(found.text, doubts, withholds=True)] if many else []
    own, other = particles.log_weight[on], leaf["log_weight"][on]
    whole, a, b = normalise(particles.log_weight), normalise(other), normalise(own)
    families = PathFamilies.of(particles.root[on], own, other)
    flat = image.detach().flatten(1).to(torch.float64).cpu()
    mean = whole @ flat
    std = (whole @ (flat - mean).square()).sqrt().clamp(min=1e-300)
    worst = 0.0
    level = families.reach(2 + math.sqrt(2 * math.log(2 * flat.shape[1])))
    mine = (flat[on] - mean) / std
    theirs = (leaf["denoised"][on].detach().flatten(1).to(torch.float64).cpu() - mean) / std
    for power in (1, 2):
        f, g, h = theirs**power, mine**power, ((flat - mean) / std) ** power
        change = a @ f - b @ g
        noise = level * families.error(a[:, None] * (f - a @ f) - b[:, None] * (g - b @ g)).clamp(min=1e-300)
        bar = (whole.square() @ (h - whole @ h).square()).sqrt().clamp(min=1e-300)
        worst = max(worst, float((coarse.least * (change.abs() - noise) / bar).max()))
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
