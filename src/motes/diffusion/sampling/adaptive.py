"""Adaptive reward tempering: the exponent rises as far as the conditional effective sample size allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.unearned import unearned
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.weights import conditional_ess, scaled, total
from motes.diffusion.arguments import check_images
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.guidance.value import ValueGradient
from motes.diffusion.processes.initial_law import InitialLaw, initial_states
from motes.diffusion.processes.transition import Transitions, transitions
from motes.diffusion.sampler import ImageSampler
from motes.diffusion.sampling.chain import WeightedChain
from motes.diffusion.sampling.reverse import SAMPLER, STEERING
from motes.errors import MotesError, UnknownName
from motes.rng import Rng

TEMPERED = cited("kim2025das", "tempering the reward")
LOW = 0.5
"""The share of the particles' worth below which the last step is remarked on."""
AT_ONCE = 1 << 17
"""The numbers that the search for a share holds at once."""


@dataclass(frozen=True, eq=False)
class AdaptiveReward(ImageSampler):
    """Reverse diffusion tilted by exp(reward), the reward's share chosen at each step from the population.

    At each step the share is the largest at which the conditional effective sample size stays above `conditional_ess`;
    at the end the reward counts in full, and if much of it was missing by then the run says so. The share need not
    rise: early predictions hardly differ, so that all of their reward can be afforded, and fall apart later. Since the
    shares come from the particles, the estimate of the normaliser is consistent and not unbiased; `ReverseDiffusion` is
    unbiased, and takes the shares that a first run chose, as the `schedule`
    dict(zip(model.table.times.tolist(), run.trace["share"])).get.

    Args:
        denoiser: the model.
        steps: the number of steps, or the falling times.
        reward: maps images (N, *shape) to (N,) nats.
        guidance: None; "reward", the gradient of the present share of the reward; or a number that multiplies it.
        shape: of one image.
        conditional_ess: the conditional effective sample size that a step keeps, as a fraction.
        integrator, noise, start, coarse, micro_batch, dtype, device: as for `ReverseDiffusion`.

    References:
        Kim, Kim & Park (2025), Test-time Alignment of Diffusion Models without Reward Over-optimization, ICLR.
        Zhou, Johansen & Aston (2016), Toward Automatic Model Comparison: An Adaptive Sequential Monte Carlo Approach,
        JCGS 25, Eq. 9.
    """

    denoiser: Denoiser
    steps: int | Tensor | Transitions
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor]
    guidance: Literal["reward"] | float | None = None
    shape: tuple[int, ...]
    conditional_ess: float = 0.9
    integrator: str = "multistep"
    noise: float = 1.0
    start: InitialLaw | None = None
    coarse: int = 4
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    table: Transitions = field(init=False, repr=False)
    evaluator: Evaluator = field(init=False, repr=False)
    chain: WeightedChain = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references: ClassVar[tuple[Reference, ...]] = (SAMPLER, STEERING, TEMPERED)  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_images(self.denoiser, self.reward, self.shape, self.dtype, self.device)
        if not 0 < self.conditional_ess < 1:
            raise MotesError(f"conditional_ess must be between 0 and 1, not {self.conditional_ess}")
        table = transitions(
            self.denoiser.process, self.steps, integrator=self.integrator, noise=self.noise, history=True
        )
        full = torch.ones(table.steps + 1, dtype=torch.float64)
        if isinstance(self.guidance, str) and self.guidance != "reward":
            raise UnknownName("guidance", self.guidance, ("reward",))
        guidance = ValueGradient(1.0 if self.guidance == "reward" else self.guidance) if self.guidance else None
        models = OneModel(self.denoiser, table)
        evaluator = Evaluator(models, self.reward, full, guidance=guidance, micro_batch=self.micro_batch)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "evaluator", evaluator)
        knobs = {"coarse": self.coarse, "integrator": self.integrator, "noise": self.noise}
        object.__setattr__(self, "chain", WeightedChain.of(models, evaluator, steps=self.steps, **knobs))
        object.__setattr__(self, "quantity", self.chain.quantity)

    def init(self, rng: Rng, n: int) -> Particles:
        process = self.denoiser.process
        state = initial_states(rng, process, self.start, (n, *self.shape), self.dtype, self.device)
        x = self.evaluator(rng, state, 0)
        x["total"] = torch.zeros(n, dtype=torch.float64)
        return self.chain.start(rng, x, shared={"share": 0.0, "kept": 1.0}, info=self._info(x, 0.0, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old, share = particles.t, particles.x, particles.shared["share"]
        state, ratio = self.table.guided_step(rng, k, old, share)
        x = self.evaluator(rng, state, k + 1)
        last = k + 1 == self.table.steps
        new = 1.0 if last else affordable(particles.log_weight, ratio - old["total"], x["reward"], self.conditional_ess)
        x["total"] = new * x["reward"] if new < 1 else x["reward"]
        kept = conditional_ess(particles.log_weight, x["total"] - old["total"] + ratio) / particles.n
        shared = particles.shared | {"share": new, "kept": kept}
        return self.chain.step(rng, particles, x, ratio, shared=shared, info=self._info(x, new, k + 1), share=share)

    @property
    def last(self) -> int:
        return self.table.steps

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the model still says of them what their file says."""
        return self.evaluator.restored(particles, self.device)

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward."""
        return particles.x["reward"]

    def remarks(self, particles: Particles) -> list[str]:
        if not self.done(particles):
            return []
        said = self.chain.remarks(particles)
        kept = float(particles.shared["kept"])
        if kept >= LOW:
            return said
        return [
            *said,
            f"the last step, where the reward counts in full, left {kept:.2g} of the particles' worth: use more steps, "
            "guidance, or more particles",
        ]

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        return self.chain.coarse_level(particles)

    def standard_error(self, particles: Particles) -> StandardError | None:
        return unearned(particles, particles.x["reward"] if self.done(particles) else None)

    def systematic(self, particles: Particles) -> Systematic | None:
        return self.chain.systematic(particles)

    def _info(self, x: dict[str, Tensor], share: float, k: int) -> dict[str, float]:
        level = float(self.denoiser.process.sigma(self.table.times[k]))
        return {"noise_level": level, "share": share, "reward": float(x["reward"].mean())}


def affordable(log_weight: Tensor, carried: Tensor, reward: Tensor, conditional_ess: float) -> float:
    """The largest share in [0, 1], to a hundredth, that keeps the conditional effective sample size above a part of N.

    Args:
        log_weight: (N,) nats, before the step.
        carried: (N,) nats, what the step adds besides the share of the reward.
        reward: (N,) nats, finite.
        conditional_ess: the fraction of N; where no share keeps it, the share that keeps most is taken.
    """
    w = scaled(log_weight)[0]
    carried, shares = torch.where(w > 0, carried, -math.inf), torch.arange(100, -1, -1, dtype=torch.float64) / 100
    best, most = 0.0, -1.0
    for part in shares.split(max(10, AT_ONCE // len(w))):  # `conditional_ess` of many shares at once
        increment = carried + part[:, None] * reward
        g = (increment - increment.amax(1, keepdim=True)).exp_()
        wg = w * g
        kept = (wg.sum(1).square() / (total(w) / len(w) * (wg * g).sum(1))).nan_to_num(nan=0.0)
        enough = (kept >= conditional_ess * len(w)).nonzero()
        if len(enough):
            return float(part[enough[0, 0]])
        if float(kept.max()) > most:
            best, most = float(part[kept.argmax()]), float(kept.max())
    return best
