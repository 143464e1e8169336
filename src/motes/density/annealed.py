"""What the samplers that temper a law have in common: the kernel, the view, the check after a load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from motes.core.cite import Reference
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.density.checking import undefined_met
from motes.density.improper import improper
from motes.density.kernel_choice import choose_kernel
from motes.density.law import Law
from motes.density.restore import same_values
from motes.density.tempered import Tempered
from motes.kernels import Kernel


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
    kernel: Kernel | str | None = None

    domain: ClassVar[str] = "density"
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
        said = undefined_met(particles.info)
        return [*said, *(improper(self.density, self.positions(particles)) if self.done(particles) else [])]

    def positions(self, particles: Particles) -> Tensor:
        """(M, d) where particles are."""
        return particles.x["position"]

    def settings(self) -> dict[str, Any]:
        return {"density": self.density.settings(), "kernel": repr(self.kernel)}
