"""The steps of a sampler that weighs them, and what is watched along them.

That is the error that the steps make, by a coarse chain beside some particles (`multilevel.py`), the tails of the
weights (`tails.py`), and whether a flow's data and noise were drawn apart (`flows/coupling.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.particles import Particles
from motes.diffusion import tails
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.flows.coupling import coupling_remarks, tested
from motes.diffusion.processes.transition import Transitions
from motes.diffusion.sampling import multilevel_error
from motes.diffusion.sampling.multilevel import Coarse
from motes.errors import MotesError
from motes.rng import Rng


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
        return "log normaliser" + (f" of the chain of {self.models.steps} steps" if self.level is None else "")

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
        return Particles.start(x | more, x["total"], shared={**shared, **coupling, **tails.light()}, info=info)

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
        return tails.watched(moved, shared)

    def remarks(self, particles: Particles, said: Sequence[str] = ()) -> list[str]:
        """What is to be said of a finished run, with what its sampler has to say."""
        found = [*coupling_remarks(particles.shared), *said, *tails.remarks(particles)]
        return [*found, *multilevel_error.remarks(self.level, particles, particles.x["denoised"])]

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        """The paths by coarse steps of a finished run."""
        return multilevel_error.coarse_level(self.level, particles) if particles.t >= self.models.steps else None

    def systematic(self, particles: Particles) -> Systematic | None:
        """What the steps err by in a finished run."""
        return multilevel_error.systematic(self.level, particles) if particles.t >= self.models.steps else None
