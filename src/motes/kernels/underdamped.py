"""Underdamped Langevin dynamics with a Metropolis test at every step (generalised Hamiltonian Monte Carlo)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.acceptance import cubic_step, rescaled_step
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.dynamics.langevin import langevin
from motes.kernels.kernel import Parameters, State, Sweep, Target, accepted, kernels, mean_acceptance, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class Underdamped(Preconditioned):
    """Adjusted underdamped Langevin: keep most of the momentum, one leapfrog step, accept it or turn round.

    In the coordinates in which the population is white, with velocities v that the particles carry on,

        v <- c v + sqrt(1 - c^2) u,  c = exp(-friction h),  u standard normal,
        (x', v') = one leapfrog step of length h, taken with probability min(1, exp(H(x, v) - H(x', v'))),
        otherwise x stays and v <- -v.

    The friction's half steps before and after a leapfrog step (OBABO) are one here, since those of two sweeps follow
    each other. p(x) N(v | 0, I) is invariant: the leapfrog step is reversible up to the sign of v, which is why a
    rejection must change it. Positions alone are not reversible. A rejection undoes the way made before, so the wanted
    acceptance is high; a = 2 Phi(-k h^3), as for MALA, gives the step. Exact; adaptation biases by O(1/N).

    References:
        Horowitz (1991), A generalized guided Monte Carlo algorithm, Physics Letters B 268(2).
        Bussi & Parrinello (2007), Accurate sampling using Langevin dynamics, Physical Review E 75, 056707.
        Bou-Rabee & Vanden-Eijnden (2010), Pathwise accuracy and ergodicity of Metropolized integrators for SDEs,
        Communications on Pure and Applied Mathematics 63(5).

    Args:
        friction: how fast velocities are forgotten, in units of the population (2 is critical for a Gaussian).
        acceptance: the wanted mean acceptance.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `friction` is not positive or `acceptance` outside of (0, 1).
    """

    friction: float = 1.0
    _: KW_ONLY
    acceptance: float = 0.9
    scale: str = "auto"

    name: ClassVar[str] = "underdamped"
    gradient: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("horowitz1991", "the underdamped Langevin kernel"),)

    def __post_init__(self) -> None:
        if not (self.friction > 0 and 0 < self.acceptance < 1):
            raise MotesError(f"Underdamped needs friction > 0 and an acceptance in (0, 1), not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        step = cubic_step(math.sqrt(d) / 8, self.acceptance)
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": step}

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        x = state["position"]
        return {**state, "velocity": rng.at("velocity").normal(tuple(x.shape), dtype=x.dtype)}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return rescaled_step(parameters, mean_acceptance(sweep, weight), self.acceptance, 3)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale, h = state["position"], parameters["scale"], parameters["step_size"]
        keep = math.exp(-self.friction * h)
        noise = rng.at("noise").normal(tuple(x.shape), dtype=x.dtype)
        v = torch.add(keep * state["velocity"], noise, alpha=math.sqrt(1 - keep * keep))
        there, ahead, heat = langevin(target, state, v, h, 0.5 * h, scale)
        acceptance, accept = accepted(rng, target.log_density(there) - target.log_density(state) + heat)
        moved = select(accept, {**there, "velocity": ahead}, {**state, "velocity": -v})
        return Sweep(moved, acceptance, 1)
