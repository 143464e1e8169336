"""Metropolis-adjusted microcanonical trajectories."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.length import LENGTHS, ideal_length, jittered_steps, learnt, rescaled, seen
from motes.kernels.adaptation.scale import fit_scale
from motes.kernels.adaptation.step_size import UNTRIED, acceptance_error, next_step_size, reopened
from motes.kernels.dynamics.isokinetic import trajectory, uniform_directions
from motes.kernels.dynamics.leapfrog import Trajectory, ended
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels, mean_acceptance
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class MAMS(Kernel):
    """Microcanonical Hamiltonian Monte Carlo, adjusted: unit speed, a gradient that only turns, one test at the end.

    In the coordinates in which the population is white a trajectory starts in a uniform direction u and follows

        dx/dt = u,   du/dt = (I - u u^T) grad / (d - 1)

    by leapfrog steps whose turns are exact (see `kernels.isokinetic`). The flow keeps the law density(x) du: a turn
    changes the volume of directions by exp(-K), so the end is taken with probability min(1, exp(change of log-density
    - sum of K)). As in ChEES-HMC the length L is jittered for all particles alike and learnt by the ChEES
    criterion, whose maximum for a standard Gaussian is at 3.18 sqrt(d), and the step by the mean acceptance. Exact, for
    d of at least 2; adaptation biases by O(1/N). Each sweep is reversible, but sweeps differ in length, so a
    sequence of them is not.

    References:
        Robnik, Cohn-Gordon & Seljak (2025), Metropolis adjusted microcanonical Hamiltonian Monte Carlo,
        arXiv:2503.01707.
        Robnik, De Luca, Silverstein & Seljak (2023), Microcanonical Hamiltonian Monte Carlo, Journal of Machine
        Learning Research 24.

    Args:
        acceptance: the wanted mean acceptance.
        jitter: a trajectory's share of the length is uniform in 1 - jitter to 1.
        rate: of Adam, on log L.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
        max_steps: the most leapfrog steps of a trajectory.

    Raises:
        ValueError: a knob is outside of its range.
        MotesError: d is 1, where there is no direction to turn to.
    """

    acceptance: float = 0.9
    _: KW_ONLY
    jitter: float = 1.0
    rate: float = 0.025
    scale: str = "auto"
    max_steps: int = 512

    name: ClassVar[str] = "mams"
    gradient: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("robnik2025", "the adjusted microcanonical kernel"),)

    def __post_init__(self) -> None:
        if not (0 < self.acceptance < 1 and 0 <= self.jitter <= 1 and self.rate > 0 and self.max_steps >= 1):
            raise MotesError(
                f"MAMS needs 0 < acceptance < 1, 0 <= jitter <= 1, rate > 0 and max_steps >= 1, not {self}"
            )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        if d < 2:
            raise MotesError("MAMS needs at least 2 dimensions: in one there is no direction to turn to; use ChEES")
        # that of ChEES-HMC, in units in which the speed is 1
        return {
            "scale": torch.ones(2, d, dtype=dtype),
            "step_size": d**0.25,
            "length": self._ideal(d),
            **UNTRIED,
            **LENGTHS,
        }

    def _ideal(self, d: int) -> float:
        # the square of the radius oscillates with frequency sqrt(2 / d), for Hamiltonian motion with 2
        return math.sqrt(2 * d) * ideal_length(self.jitter)

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x = state["position"]
        scale = fit_scale(x, weight, self.scale, parameters["scale"])
        return rescaled(reopened(parameters), scale, x, weight, self._ideal(x.shape[1]))

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        mean = mean_acceptance(sweep, weight)
        parameters = next_step_size(parameters, mean, acceptance_error(mean, self.acceptance))
        return learnt(parameters, sweep, weight, self.rate)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, h = state["position"], parameters["step_size"]
        steps = jittered_steps(rng, parameters, self.jitter, self.max_steps)
        u = uniform_directions(rng.at("direction"), (len(x), x.shape[1]), x.dtype)
        end = Trajectory(*trajectory(target, state, u, h, steps, parameters["scale"]))
        what = seen(x, end.state["position"], end.velocity, steps * h)
        return ended(rng, end, state, steps, what)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"], "length": parameters["length"]}
