"""Several proposals a particle at each step, one of them kept by its value."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import cited
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.diffusion.sampling.chain import watched
from motes.diffusion.sampling.reverse import ReverseDiffusion
from motes.errors import WrongType, check_at_least
from motes.rng import Rng

VALUE = cited("li2024svdd", "the choice among proposals")


@dataclass(frozen=True, eq=False)
class ValueDecoding(FeynmanKac):
    """Value-based decoding: each particle draws M next states and keeps one, drawn in proportion to its potential.

    The particle's weight is multiplied by the mean potential of its M proposals, so that E[Z_hat] = Z at any M, as in
    the auxiliary particle filter; the published decoder drops that weight, and takes the best instead of drawing. Costs
    M evaluations of the model a particle and step, all in one call; needs no gradient.

    Args:
        inner: the sampler whose steps are proposed, with its reward, potential and guidance.
        proposals: M.

    Raises:
        ValueError: fewer than one proposal.

    References:
        Li et al. (2024), Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based
        Decoding, arXiv 2408.08252, Algorithm 1 (the choice).
        Pitt & Shephard (1999), Filtering via Simulation: Auxiliary Particle Filters, JASA 94 (the weight).
    """

    inner: ReverseDiffusion
    _: KW_ONLY
    proposals: int = 4

    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        if not isinstance(self.inner, ReverseDiffusion):
            raise WrongType(
                f"give the sampler whose steps are proposed, a ReverseDiffusion, not a {type(self.inner).__name__}"
            )
        check_at_least(1, proposals=self.proposals)
        object.__setattr__(self, "references", (*self.inner.references, VALUE))
        object.__setattr__(self, "quantity", self.inner.quantity)

    def init(self, rng: Rng, n: int) -> Particles:
        return self.inner.init(rng, n)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        n, m = particles.n, self.proposals
        row = torch.arange(n).repeat_interleave(m)
        ids = torch.arange(n) if rng.ids is None else rng.ids
        wide = Particles.start(tree.take(particles.x, row), torch.zeros(n * m, dtype=torch.float64))
        wide = replace(wide, t=particles.t, shared=particles.shared)
        new = self.inner.step(rng.shard((ids[:, None] * m + torch.arange(m)).flatten()), wide)
        value = new.log_weight.reshape(n, m)
        kept = (value + rng.at("choice").gumbel((n, m))).argmax(1)
        x = tree.take(new.x, torch.arange(n) * m + kept)
        if self.inner.chain.level is not None and self.inner.done(
            new
        ):  # the inner weights are those of one proposal alone
            chosen = particles.log_weight + value.logsumexp(1) - math.log(m) - value.gather(1, kept[:, None])[:, 0]
            leaf = x["coarse"]
            x["coarse"] = leaf | {name: leaf[name] + chosen for name in ("log_weight", "base")}
        moved = particles.step(x, value.logsumexp(1) - math.log(m), info=new.info)
        return watched(moved, particles.shared)

    def done(self, particles: Particles) -> bool:
        return self.inner.done(particles)

    def progress(self, particles: Particles) -> float:
        return self.inner.progress(particles)

    def shows(self) -> str:
        return self.inner.shows()

    def view(self, particles: Particles) -> Tensor:
        """The images (N, *shape)."""
        return self.inner.view(particles)

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the inner sampler still says of them what their file says."""
        return self.inner.restore(particles)

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward."""
        return self.inner.order(particles)

    def remarks(self, particles: Particles) -> list[str]:
        return self.inner.remarks(particles)

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        return self.inner.coarse_level(particles)

    def systematic(self, particles: Particles) -> Systematic | None:
        return self.inner.systematic(particles)
