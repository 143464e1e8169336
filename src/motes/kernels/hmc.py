"""Hamiltonian Monte Carlo with the population's covariance as the inverse mass."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.errors import MotesError
from motes.kernels.adaptation.scale import fit_scale
from motes.kernels.dynamics.leapfrog import DIVERGED as DIVERGED  # kernels with trajectories of their own give up alike
from motes.kernels.dynamics.leapfrog import leapfrog, least_work
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, mean_acceptance, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class HMC(Kernel):
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
        Reference(
            "duane1987",
            "Duane, Kennedy, Pendleton, Roweth",
            1987,
            "Hybrid Monte Carlo",
            "Physics Letters B 195(2)",
            "the Hamiltonian kernel",
        ),
        Reference(
            "beskos2013",
            "Beskos, Pillai, Roberts, Sanz-Serna, Stuart",
            2013,
            "Optimal tuning of the hybrid Monte Carlo algorithm",
            "Bernoulli 19(5A)",
            "the Hamiltonian kernel's step size",
        ),
    )

    def __post_init__(self) -> None:
        if not (self.length > 0 and 0 <= self.jitter < 1 and self.max_steps >= 1):
            raise MotesError(f"HMC needs length > 0, 0 <= jitter < 1 and max_steps >= 1, not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # a standard Gaussian in d dimensions has k = sqrt(d) / 8 for small steps
        return self._steps({"scale": torch.ones(2, d, dtype=dtype), "difficulty": math.sqrt(d) / 8})

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        return {**parameters, "scale": fit_scale(state["position"], weight, self.scale, parameters["scale"])}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        acceptance = mean_acceptance(sweep, weight)
        quantile = -NormalDist().inv_cdf(min(max(acceptance, 1e-3), 0.999) / 2)
        found = quantile / parameters["step_size"] ** 2
        old = parameters["difficulty"]
        return self._steps({**parameters, "difficulty": min(max(found, old / 4), old * 4)})

    def _steps(self, parameters: Parameters) -> Parameters:
        """The number of leapfrog steps with the least work, and their size."""
        n = least_work(parameters["difficulty"], self.length, self.max_steps)
        return {**parameters, "leapfrog_steps": n, "step_size": self.length / n}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale, n = state["position"], parameters["scale"], parameters["leapfrog_steps"]
        jitter = rng.at("jitter").uniform((len(x), 1), dtype=x.dtype).mul_(2 * self.jitter).add_(1 - self.jitter)
        h = parameters["step_size"] * jitter
        v = rng.at("momentum").normal(tuple(x.shape), dtype=x.dtype)
        end = leapfrog(target, state, v, h, n, scale)
        acceptance, accept = accepted(rng, torch.where(end.kept, end.log_ratio, -math.inf))
        return Sweep(select(accept, end.state, state), acceptance, n, ~end.kept)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"], "leapfrog_steps": float(parameters["leapfrog_steps"])}
