"""Kernels whose trajectories have one length, cut into the number of leapfrog steps that gives the least work."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from motes.kernels.adaptation.acceptance import difficulty
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.dynamics.leapfrog import least_work
from motes.kernels.kernel import Parameters, State, Sweep, mean_acceptance
from motes.rng import Rng


class Trajectories(Preconditioned):
    """A kernel with trajectories of one length, whose steps are jittered for each particle.

    Acceptance as a function of the step is 2 Phi(-k h^2) (Beskos et al. 2013, theorem 3.6), and one sweep gives k.
    """

    jitter: float
    max_steps: int

    @abstractmethod
    def span(self) -> float:
        """The time of a trajectory, in standard deviations of the population."""

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # a standard Gaussian in d dimensions has k = sqrt(d) / 8 for small steps
        return self._steps({"scale": torch.ones(2, d, dtype=dtype), "difficulty": math.sqrt(d) / 8})

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        found = difficulty(mean_acceptance(sweep, weight), parameters["step_size"], 2)
        old = parameters["difficulty"]
        return self._steps({**parameters, "difficulty": min(max(found, old / 4), old * 4)})

    def _steps(self, parameters: Parameters) -> Parameters:
        """The number of leapfrog steps with the least work, and their size."""
        n = least_work(parameters["difficulty"], self.span(), self.max_steps)
        return {**parameters, "leapfrog_steps": n, "step_size": self.span() / n}

    def launched(self, rng: Rng, state: State, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Velocities (N, d) to begin with, and the step (N, 1) of each particle."""
        x = state["position"]
        jitter = rng.at("jitter").uniform((len(x), 1), dtype=x.dtype).mul_(2 * self.jitter).add_(1 - self.jitter)
        return rng.at("momentum").normal(tuple(x.shape), dtype=x.dtype), parameters["step_size"] * jitter

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"], "leapfrog_steps": float(parameters["leapfrog_steps"])}
