"""Hamiltonian Monte Carlo with the population's covariance as the inverse mass."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.dynamics.leapfrog import ended, leapfrog
from motes.kernels.dynamics.trajectories import Trajectories
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class HMC(Trajectories):
    """Hamiltonian Monte Carlo in the coordinates in which the population is white, needing no tuning.

    The state is x, the velocity v is standard normal, S S^T is the population's covariance, and the leapfrog steps are
    v += h/2 S^T grad; x += h S v; v += h/2 S^T grad. The trajectory is `length` long in these coordinates (pi / 2 takes
    a Gaussian to an independent draw), with h jittered for each particle. The number of leapfrog steps is what gives
    the least work for an independent draw: acceptance as a function of the step is a(h) = 2 Phi(-k h^2) (Beskos et al.
    2013, theorem 3.6), one sweep gives k, and n steps cost n (2 - a) / a. Adaptation biases by O(1/N).

    References:
        Duane, Kennedy, Pendleton & Roweth (1987), Hybrid Monte Carlo, Physics Letters B 195(2).
        Beskos, Pillai, Roberts, Sanz-Serna & Stuart (2013), Optimal tuning of the hybrid Monte Carlo algorithm,
        Bernoulli 19(5A).
        Buchholz, Chopin & Jacob (2021), Adaptive tuning of Hamiltonian Monte Carlo within sequential Monte Carlo,
        Bayesian Analysis 16(3).

    Args:
        length: time of a trajectory, in standard deviations of the population.
        jitter: each particle's step is the common one times a uniform number in 1 -+ jitter.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
        max_steps: the most leapfrog steps of a trajectory.
    """

    length: float = math.pi / 2
    _: KW_ONLY
    jitter: float = 0.2
    scale: str = "auto"
    max_steps: int = 64

    name: ClassVar[str] = "hmc"
    gradient: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (
        cited("duane1987", "the Hamiltonian kernel"),
        cited("beskos2013", "the Hamiltonian kernel's step size"),
    )

    def __post_init__(self) -> None:
        if not (self.length > 0 and 0 <= self.jitter < 1 and self.max_steps >= 1):
            raise MotesError(f"HMC needs length > 0, 0 <= jitter < 1 and max_steps >= 1, not {self}")

    def span(self) -> float:
        return self.length

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        v, h = self.launched(rng, state, parameters)
        n = parameters["leapfrog_steps"]
        return ended(rng, leapfrog(target, state, v, h, n, parameters["scale"]), state, n)
