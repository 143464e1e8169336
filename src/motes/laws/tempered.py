"""The tempered law of a density: prior times likelihood to the power of an inverse temperature."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from motes.kernels import State, Tally, Target
from motes.laws.law import Law


@dataclass(frozen=True)
class Tempered(Target):
    """prior(z) likelihood(z)^temperature, with 0 < temperature <= 1 (an inverse temperature; 1 is the posterior)."""

    density: Law
    temperature: float
    compiled: bool = False
    counted: Tally = field(default_factory=Tally, compare=False, repr=False)

    @property
    def levels(self) -> int | None:
        return self.density.levels

    def tally(self) -> Tally:
        return self.counted

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        state, undefined = self.density.trial(position, gradient, self.compiled)
        self.counted.add(undefined)
        return state

    def log_density(self, state: State) -> Tensor:
        return torch.add(state["log_prior"], state["log_likelihood"], alpha=self.temperature)

    def gradient(self, state: State) -> Tensor:
        return torch.add(state["prior_gradient"], state["likelihood_gradient"], alpha=self.temperature)

    def part(self, index: Tensor) -> Tempered:
        # every number of particles would be compiled anew
        return replace(self, compiled=False) if self.compiled else self

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        prior, likelihood = self.density.hessian_vector(position, vector)
        return torch.add(prior, likelihood, alpha=self.temperature)
