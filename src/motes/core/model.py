"""What the engine runs: a Feynman-Kac model, that is an initial law, moves and log-potentials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from motes.core.cite import Reference
from motes.core.files.settings import knobs
from motes.core.particles import Particles
from motes.core.tree import PyTree
from motes.errors import ShapeError
from motes.rng import Rng

if TYPE_CHECKING:
    from motes.core.estimate.coarse_level import CoarseLevel
    from motes.core.estimate.systematic import Systematic
    from motes.core.estimate.variance import StandardError
    from motes.core.resampling import Scheme


class FeynmanKac(ABC):
    """An initial law, moves, and log-potentials: whatever samples is written as one of these three-method models.

    After t steps the particles approximate the law whose density against the path of the moves is the product of the
    potentials; its normaliser is estimated by the mean weight.

    References:
        Del Moral (2004), Feynman-Kac Formulae, Springer.
        Chopin & Papaspiliopoulos (2020), An Introduction to Sequential Monte Carlo, chapter 5, Springer.
    """

    quantity: ClassVar[str] = "log evidence"
    """What the normaliser is called for this model."""
    by_weight: ClassVar[bool] = True
    """Whether the particles' weights decide who is resampled, so that families tell the error of the run."""
    references: tuple[Reference, ...] = ()
    """The sources of what this model does, for `motes.cite`."""

    @abstractmethod
    def init(self, rng: Rng, n: int) -> Particles:
        """`n` particles at t = 0; `Particles.start(x, log_weight)` makes them."""

    @abstractmethod
    def step(self, rng: Rng, particles: Particles) -> Particles:
        """Move every particle, then reweight; `particles.step(x, log_potential)` makes the result."""

    @abstractmethod
    def done(self, particles: Particles) -> bool:
        """Whether the run has reached its end."""

    def view(self, particles: Particles) -> PyTree:
        """The particles as the user means them: named parameters, texts, images."""
        return particles.x

    def shows(self) -> str:
        """Of which kind `view` is, a name in `motes.core.views`: "table", "texts", "images" or "chains"."""
        return "table"

    def restore(self, particles: Particles) -> Particles:
        """Make anew what files do not hold (each `core.tree.Missing` in x), after a load.

        `core.files.resuming` has `must_agree`, to compare what the model says of the particles with what it said when
        they were saved, and `on_device`.
        """
        return particles

    def continues(self, particles: Particles) -> bool:
        """Whether a saved run that had ended goes on with this model: more data have come since."""
        return False

    def restarted(self, particles: Particles) -> bool:
        """Whether the last step threw the population away and drew a new one, which then has no ancestors."""
        return False

    def must_resample(self, particles: Particles) -> bool | None:
        """Whether to resample before the next step; None leaves it to the effective sample size."""
        return None

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        """The population after resampling, all weights equal to the mean weight."""
        order = self.order(particles) if scheme.needs_order else None
        return particles.resampled(scheme(rng, particles.log_weight, order=order))

    def standard_error(self, particles: Particles) -> StandardError | None:
        """The standard error of the log evidence, where the model knows better than the genealogy of the particles."""
        return None

    def systematic(self, particles: Particles) -> Systematic | None:
        """An error of the log evidence that more particles do not cure, where the model can estimate one."""
        return None

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        """Some of the particles by a coarser rule, from which means know their systematic error; None without such."""
        return None

    def remarks(self, particles: Particles) -> Sequence[str]:
        """What the user should be told of this run, a sentence each; nothing if all is well.

        A sentence that puts an estimate in doubt is a `core.remark.Remark`, which says which one.
        """
        return []

    def advice(self, particles: Particles) -> str:
        """What to do where all weights are zero, for the error that says so."""
        return "Use more particles, softer potentials, or a proposal that looks ahead"

    def score(self, particles: Particles) -> Tensor | None:
        """(N, d) the gradient of the target's log-density at the particles, for control variates; None if unknown."""
        return None

    def order(self, particles: Particles) -> Tensor:
        """(N,) a number by which sorted resampling orders the particles."""
        x = particles.x
        if isinstance(x, Tensor) and x.reshape(particles.n, -1).shape[1] == 1:
            return x.reshape(-1)
        raise ShapeError(
            f"{type(self).__name__} has no one-dimensional order for sorted resampling: give it an `order(particles)` "
            "that returns one number a particle, or choose another resampling scheme"
        )

    def progress(self, particles: Particles) -> float | None:
        """How much of the run is done, from 0 to 1, for the progress bar; None if that is not known."""
        return None

    def settings(self) -> dict[str, Any]:
        """What identifies this model, as JSON: kept with the run and compared on resume; a dataclass by its fields."""
        return knobs(self) if is_dataclass(self) else {}
