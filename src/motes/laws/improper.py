"""Whether a posterior can be normalised at all: its density followed outwards from the particles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.remark import ALL, Remark
from motes.laws.law import Law
from motes.rng import Rng

RAYS, OCTAVES = 32, 24
"""Particles from which the density is followed outwards, and how often their distance from the centre is doubled."""
RISES = 4
"""Octaves at the end of a ray over which the mass must not fall for the law to count as improper."""
DIGITS, VAGUE = 100.0, 1.0
"""Roundings that a difference may hide in, and the nats of them above which it is not known."""
ASKEW = 1e-3
"""Every ray leaves every axis by this, in median deviations."""

SAID = (
    "the posterior is improper: outwards from {count} of {all} particles density times volume does not fall, however "
    "far, so that there is no normaliser, and what the particles say depends on where they happened to stop. The "
    "log-likelihood grows as fast as the prior falls, or faster: look for a wrong sign, a likelihood that is no "
    "density of the data, or a flat prior that the data leave open"
)


def improper(law: Law, z: Tensor) -> list[Remark]:
    """A remark that withholds all error bars if the law has infinite mass far out; empty if it seems to have not.

    On a ray c + s (z_i - c), s = 1, 2, 4, ..., through the centre c of the population, the integrand of the mass is
    p(c + s (z_i - c)) s^(d - 1) ds. Where the mass is finite, p s^d falls to 0 on almost every ray; where it rises to
    the end of what floating-point numbers reach, on any of the rays through the farthest particles, the mass is
    infinite. A support that ends is a fall. What is infinite elsewhere, where no particle is near, is not seen.

    Args:
        z: (N, d) the last particles.
    """
    z = z[torch.isfinite(z).all(1)].to(torch.float64)
    if law.levels is not None or len(z) < 2:
        return []
    centre = z.median(0).values
    off = z - centre
    off = off[(off != 0).any(1)]  # copies of the centre are on no ray
    if len(off) == 0:  # where all are, the ray comes from the middle of the reference
        centre = law.sample(Rng(0).at("centre"), 65).to(torch.float64).median(0).values
        off = (z - centre)[:1]
    # the median deviation, so that a few that ran off do not hide that they are far from the others
    scale = off.abs().median(0).values
    scale = torch.where(scale > 0, scale, off.abs().amax(0).clamp_min(torch.finfo(torch.float64).tiny))
    # the median is a coordinate of some particle, whose ray would run along the axes, where tails may well not fall
    off = torch.where(off.abs() < ASKEW * scale, ASKEW * scale, off)
    size = (off / scale).abs().amax(1)
    far = size.argsort(descending=True)[:RAYS]
    reach = 2.0 ** torch.arange(OCTAVES + 1, dtype=torch.float64)
    points = centre + reach[:, None, None] * off[far]
    state, undefined = law.trial(points.reshape(-1, z.shape[1]).to(law.dtype))
    prior, likelihood = state["log_prior"], state["log_likelihood"]
    height = (prior + likelihood).view(len(reach), -1)
    mass = height + z.shape[1] * reach.log()[:, None]
    # a likelihood that is written as a ratio to the prior cancels it to no more than the digits of both
    rounding = DIGITS * torch.finfo(torch.float64).eps * (prior.abs() + likelihood.abs()).view_as(height)
    unknown = ~torch.isfinite(points).all(2) | ((rounding > VAGUE) & (height.abs() < rounding))
    if undefined is not None:
        unknown |= undefined.where.view(unknown.shape)
    count = sum(_rises(mass[:, k], unknown[:, k]) for k in range(len(far)))
    return [Remark(SAID.format(count=count, all=len(far)), ALL, withholds=True)] if count else []


def _rises(mass: Tensor, unknown: Tensor) -> bool:
    """Whether log-masses (K,) never fall over the last octaves before they are `unknown`, and rise in the end."""
    known = int(unknown.to(torch.uint8).argmax()) if unknown.any() else len(mass)
    end = mass[:known]
    if known <= RISES or not torch.isfinite(end[-RISES - 1 :]).all():
        return False
    steps = end[-RISES - 1 :].diff()
    return bool((steps >= 0).all()) and math.isfinite(float(end[-1])) and float(end[-1]) > float(end[0])
