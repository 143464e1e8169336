"""What the samplers that temper a law have in common: the kernel, the view, the check after a load."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from motes.core.cite import Reference
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.density.kernel_choice import choose_kernel
from motes.density.last_look import LastLook, last_look
from motes.errors import MotesError
from motes.kernels import Kernel, State
from motes.laws.checking import undefined_met
from motes.laws.improper import improper
from motes.laws.law import Law
from motes.laws.restore import same_values
from motes.laws.tempered import Tempered
from motes.rng import Rng


@dataclass(frozen=True)
class Annealed(FeynmanKac):
    """A model whose particles are states of a law, under "position", "log_prior" and "log_likelihood" in `x`.

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.

    Raises:
        MotesError: the kernel needs gradients that the density has not.
    """

    density: Law
    _: KW_ONLY
    kernel: Kernel | str | None = None

    quantity: ClassVar[str] = "log evidence"
    sources: ClassVar[tuple[Reference, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", choose_kernel(self.density, self.kernel, "hmc"))

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return (*self.sources, *self.mover.references)

    @property
    def mover(self) -> Kernel:
        """The kernel that was chosen."""
        assert isinstance(self.kernel, Kernel)
        return self.kernel

    def target(self, temperature: float) -> Tempered:
        """The law at a temperature."""
        return Tempered(self.density, temperature, self.density.compile is True)

    def view(self, particles: Particles) -> Any:
        return self.density.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        same_values(self.density, particles.x)
        return particles

    def order(self, particles: Particles) -> Tensor:
        x = particles.x
        return x["position"][:, 0] if self.density.dim == 1 else x["log_likelihood"]

    def remarks(self, particles: Particles) -> list[str]:
        said: list[str] = [*undefined_met(particles.info)]
        if self.done(particles):
            said += improper(self.density, self.positions(particles))
            if "look" in particles.shared:
                said += LastLook(**particles.shared["look"]).remarks()
        return said

    def looked(
        self, rng: Rng, particles: Particles, state: State, weight: Tensor, family: Tensor, memory: float = 0.0
    ) -> Particles:
        """Finished particles with what a last look at them found, beside what `shared` has noted under "look".

        Args:
            state: the particles to look at, (M, ...), as the density evaluated them.
            weight: (M,) normalised.
            family, memory: see `last_look.last_look`.
        """
        noted = LastLook(**particles.shared["look"])
        look = last_look(rng.at("last-look"), noted, self.target(1.0), self.mover, state, weight, family, memory)
        info = {**particles.info, "evaluations": particles.info["evaluations"] + look.evaluations / particles.n}
        return replace(particles, shared={**particles.shared, "look": look.to_shared()}, info=info)

    def final_score(self, particles: Particles) -> Tensor | None:
        """(N, d) the score of the law at finished particles; None of whole numbers, and without its gradients."""
        x, known = particles.x, self.mover.gradient and not self.mover.discrete
        return x["prior_gradient"] + x["likelihood_gradient"] if particles.shared["final"] and known else None

    def positions(self, particles: Particles) -> Tensor:
        """(M, d) where particles are."""
        return particles.x["position"]


def check_shares(conditional_ess: float, max_correlation: float) -> None:
    """What chooses temperatures and sweeps lies between 0 and 1."""
    if not 0 < conditional_ess < 1 or not 0 < max_correlation < 1:
        raise MotesError(
            f"conditional_ess and max_correlation must lie in (0, 1), not {conditional_ess} and {max_correlation}"
        )


def risen(temperature: float, now: float, t: int) -> float:
    """The temperature after `now`, which is higher, or an error says why it cannot be."""
    if not temperature > now:
        raise MotesError(
            f"the temperature cannot rise above {now!r} at t={t}: the log-likelihood varies by more than its 16 "
            "digits hold; look for a likelihood of enormous size or a prior far too wide"
        )
    return temperature


def climbed(particles: Particles) -> float:
    """How much of the way to temperature 1 is done, as its logarithm, from 0 to 1."""
    first, now = particles.shared["ladder"][0]["temperature"], particles.shared["temperature"]
    return 1.0 if now == 1.0 else 1.0 - math.log(now) / math.log(first)
