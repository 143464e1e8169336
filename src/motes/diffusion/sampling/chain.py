"""The steps of a sampler that weighs them, and what is watched along them.

That is the error that the steps make, by a coarse chain beside some particles (`multilevel.py`), the tails of the
weights, and whether a flow's data and noise were drawn apart (`flows/coupling.py`). `core/estimate/variance.py`
withholds the error bar where few particles had the largest weights, so that even their mean is unknown; where weights
have heavy tails the mean may be known, and the error bar of it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.upper_tail import pareto_shape, tail_length
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.weights import ess
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.flows.coupling import coupling_remarks, tested
from motes.diffusion.processes.transition import Transitions
from motes.diffusion.sampling import multilevel_error
from motes.diffusion.sampling.multilevel import Coarse
from motes.errors import MotesError, plural
from motes.rng import Rng

HEAVY = 0.5
"""From this shape of a Pareto tail on the variance of weights is infinite, so no error bar can be taken from it: of 21
runs of mixtures that were off by more than 4 of their bars it was above in 18."""
CHANCE = 4.0
"""This over the number of weights in the tail is taken off the shape, which few of them know badly: with 128, 256 and
512 particles it then was above in 1 of 216 runs of normal laws, tilted with and without guidance."""
MANY = 100
"""Positive weights from which a tail is looked at."""
UNEVEN = 0.8
"""Weights are looked at where their effective sample size is below this share of the particles."""
NONE = -torch.inf


@dataclass(frozen=True, eq=False)
class WeightedChain:
    """The steps of a sampler, with what particles carry and share besides what the evaluator says of them.

    Args:
        models, evaluator: who is asked, and by what steps.
        level: the coarse chain; None without one.
    """

    models: OneModel
    evaluator: Evaluator
    level: Coarse | None

    @classmethod
    def of(
        cls, models: OneModel, evaluator: Evaluator, *, steps: Any, coarse: int, integrator: str, noise: float
    ) -> WeightedChain:
        """The chain of a sampler with these knobs; steps that were given as a table have no coarse ones.

        Raises:
            ValueError: `coarse` is negative.
        """
        if coarse < 0:
            raise MotesError(f"coarse must be at least 1, or 0 for no coarse paths, not {coarse}")
        every = 0 if isinstance(steps, Transitions) else coarse
        return cls(models, evaluator, Coarse.beside(every, models, evaluator, integrator, noise))

    @property
    def quantity(self) -> str:
        """What the normaliser is called."""
        chain = f" of the chain of {plural(self.models.steps, 'step')}" if self.level is None else ""
        return f"log normaliser{chain}"

    def about(self, **functions: Any) -> WeightedChain:
        """The same steps, asked about another reward, twist and guidance."""
        level = self.level
        if level is not None:
            level = replace(level, evaluator=replace(level.evaluator, **functions))
        return replace(self, evaluator=replace(self.evaluator, **functions), level=level)

    def start(self, rng: Rng, x: dict[str, Any], *, shared: dict[str, Any], info: dict[str, float]) -> Particles:
        """The particles at the first time, of what the evaluator said, with the "total" (N,) of their potentials."""
        state, models = x["state"], self.models
        more = {} if models.table.back is None else {"previous": x["denoised"]}
        if self.level is not None:
            more["coarse"] = self.level.begun(rng, x | more)
        shape, device = tuple(state.shape[1:]), str(state.device)
        coupling = tested(models.denoisers, shape, state.dtype, device, self.evaluator.micro_batch)
        return Particles.start(x | more, x["total"], shared={**shared, **coupling, **light_tails()}, info=info)

    def step(
        self,
        rng: Rng,
        particles: Particles,
        x: dict[str, Any],
        log_ratio: Tensor,
        *,
        shared: dict[str, Any],
        info: dict[str, float],
        share: float = 1.0,
    ) -> Particles:
        """The particles after a step.

        Args:
            rng: the address of the step.
            particles: before it.
            x: what the evaluator said of them after it, with the "total" (N,) of their potentials.
            log_ratio, share: what `guided_step` returned, and what multiplied the shift.
            shared, info: of the population after the step.
        """
        k, old = particles.t, particles.x
        more = {} if self.models.table.back is None else {"previous": old["denoised"]}
        if self.level is not None:
            more["coarse"] = self.level.step(rng, k, old, log_ratio, share)
            if k + 1 == self.models.steps:
                base = particles.log_weight + log_ratio - old["total"]
                more["coarse"] = self.level.finished(k, old, x | more, base)
        moved = particles.step(x | more, x["total"] - old["total"] + log_ratio, shared=shared, info=info)
        return watched(moved, shared)

    def remarks(self, particles: Particles, said: Sequence[str] = ()) -> list[str]:
        """What is to be said of a finished run, with what its sampler has to say."""
        found = [*coupling_remarks(particles.shared), *said, *tail_remarks(particles)]
        return [*found, *multilevel_error.remarks(self.level, particles, particles.x["denoised"])]

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        """The paths by coarse steps of a finished run."""
        return multilevel_error.coarse_level(self.level, particles) if particles.t >= self.models.steps else None

    def systematic(self, particles: Particles) -> Systematic | None:
        """What the steps err by in a finished run."""
        return multilevel_error.systematic(self.level, particles) if particles.t >= self.models.steps else None


def light_tails() -> dict[str, Tensor]:
    """What a population shares of its tails at first."""
    return {"tail": torch.tensor(NONE, dtype=torch.float64)}


def watched(particles: Particles, shared: dict[str, Any]) -> Particles:
    """The particles after a step, with the heaviest tail so far in what they share.

    Args:
        particles: after the step, before they may be resampled.
        shared: of the population before the step.
    """
    tail = shared["tail"]
    if ess(particles.log_weight) < UNEVEN * particles.n:
        alive = int((particles.log_weight > -torch.inf).sum())
        if alive >= MANY:
            shape = pareto_shape(particles.log_weight) - CHANCE / tail_length(alive)
            if shape > float(shared["tail"]):  # NaN where too few weights differ
                tail = torch.tensor(shape, dtype=torch.float64)
    if particles.shared.get("tail") is tail:
        return particles
    return replace(particles, shared={**particles.shared, "tail": tail})


def tail_remarks(particles: Particles) -> list[str]:
    """A sentence where the weights were too uneven for error bars to hold.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto Smoothed Importance Sampling, JMLR 25, section 3.
    """
    shape = float(particles.shared["tail"])
    if not shape > HEAVY:
        return []
    return [
        Remark(
            f"at some step a few particles had most of the weight (a Pareto tail of shape {shape:.2f} at least; from "
            f"{HEAVY} on the variance of weights is infinite): particles that would matter as much may be missing, and "
            "estimates be off by more than their error bars say. Use other guidance or a better twist, or more "
            "particles",
            ALL,
        )
    ]
