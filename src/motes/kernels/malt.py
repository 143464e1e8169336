"""Metropolis-adjusted Langevin trajectories: momentum is refreshed along the way, and tested once at the end."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.dynamics.leapfrog import ended, leapfrog
from motes.kernels.dynamics.trajectories import Trajectories
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class MALT(Trajectories):
    """Metropolis-adjusted Langevin trajectories: leapfrog steps with friction between them, one test of their errors.

    In the coordinates in which the population is white a trajectory starts with a fresh velocity v and takes leapfrog
    steps of length h; between two of them v <- c v + sqrt(1 - c^2) u with c = exp(-friction h). Each refreshment is
    reversible for N(0, I), so only the energy errors of the leapfrog steps count: with D their sum, the end is taken
    with probability min(1, exp(-D)). No velocity is
    turned round at a rejection, unlike in generalised Hamiltonian Monte Carlo; with friction 0 this is Hamiltonian
    Monte Carlo. (The half refreshments before the first step and after the last change nothing and are left out.)

    Friction damps the resonances of trajectories with one length. For a Gaussian with variance 1 and friction f < 2 the
    correlation of the ends is 0 for length (pi - arctan(2 w / f)) / w with w = sqrt(1 - f^2 / 4), which the default
    length is. The number of steps and their size are chosen as for Hamiltonian Monte Carlo. Exact; adaptation biases
    by O(1/N).

    References:
        Riou-Durand & Vogrinc (2022), Metropolis adjusted Langevin trajectories: a robust alternative to Hamiltonian
        Monte Carlo, arXiv:2202.13230.
        Riou-Durand, Sountsov, Vogrinc, Margossian & Power (2023), Adaptive tuning for Metropolis adjusted Langevin
        trajectories, AISTATS.

    Args:
        friction: how fast velocities are forgotten, in units of the population.
        length: time of a trajectory, in standard deviations of the population; None is that above.
        jitter: each particle's step is the common one times a uniform number in 1 -+ jitter.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
        max_steps: the most leapfrog steps of a trajectory.

    Raises:
        ValueError: a knob is outside of its range, or friction is above 1.5 and no length is given.
    """

    friction: float = 0.5
    _: KW_ONLY
    length: float | None = None
    jitter: float = 0.2
    scale: str = "auto"
    max_steps: int = 64

    name: ClassVar[str] = "malt"
    gradient: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (cited("rioudurand2022", "the kernel of Langevin trajectories"),)

    def __post_init__(self) -> None:
        if not (self.friction >= 0 and 0 <= self.jitter < 1 and self.max_steps >= 1):
            raise MotesError(f"MALT needs friction >= 0, 0 <= jitter < 1 and max_steps >= 1, not {self}")
        if self.length is None and self.friction > 1.5:
            raise MotesError(f"MALT needs a length where friction is above 1.5, not {self}")
        if self.length is not None and not self.length > 0:
            raise MotesError(f"MALT needs length > 0, not {self}")

    def span(self) -> float:
        w = math.sqrt(max(1 - self.friction**2 / 4, 0.0))
        return (math.pi - math.atan2(2 * w, self.friction)) / w if self.length is None else self.length

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale, n = state["position"], parameters["scale"], parameters["leapfrog_steps"]
        v, h = self.launched(rng, state, parameters)
        if self.friction == 0:
            return ended(rng, leapfrog(target, state, v, h, n, scale), state, n)
        keep = torch.exp(-self.friction * h)
        fresh = (1 - keep.square()).sqrt()
        end = leapfrog(target, state, v, h, 1, scale)
        for i in range(1, n):
            kept, log_ratio = end.kept, end.log_ratio
            h = torch.where(kept[:, None], h, 0.0)  # what was given up goes back and stays
            v = torch.addcmul(keep * end.velocity, fresh, rng.at(f"refresh-{i}").normal(tuple(x.shape), dtype=x.dtype))
            there = {**end.state, "position": torch.where(kept[:, None], end.state["position"], x)}
            end = leapfrog(target, there, v, h, 1, scale)
            end = replace(end, log_ratio=log_ratio + end.log_ratio, kept=kept & end.kept)
        return ended(rng, end, state, n)
