"""What a Markov kernel is: something that moves every particle and leaves a law invariant.

A kernel holds knobs only. What it has learnt (a step size, the shape of the population) is a dict of numbers and
tensors, its *parameters*, that its caller carries along and saves; what belongs to the particles is a *state*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.rng import Rng

State = dict[str, Tensor]
"""Tensors (N, ...): "position" (N, d) and whatever a `Target` evaluated there, so nothing is evaluated twice."""

Parameters = dict[str, Any]
"""What a kernel has learnt: numbers and tensors that belong to the whole population."""


class Target(ABC):
    """A law on R^d, known by its log-density up to a constant."""

    @abstractmethod
    def evaluate(self, position: Tensor, gradient: bool) -> State:
        """The state at `position` (N, d), with what `gradient` needs if asked; the only call that takes long."""

    @abstractmethod
    def log_density(self, state: State) -> Tensor:
        """(N,) nats, -inf outside of the support, never NaN."""

    @abstractmethod
    def gradient(self, state: State) -> Tensor:
        """(N, d) the gradient of the log-density; finite everywhere (0 where the log-density is -inf)."""


@dataclass(frozen=True)
class Sweep:
    """What one sweep did.

    Attributes:
        state: the particles after it.
        acceptance: (N,) the probability with which each proposal was accepted.
        evaluations: density evaluations a particle.
    """

    state: State
    acceptance: Tensor
    evaluations: int


class Kernel(ABC):
    """A Markov kernel whose knobs need no tuning: it learns from the population that it moves.

    `fit` and `learn` make the next parameters from what is known before a sweep; `sweep` leaves the target invariant
    for any fixed parameters. Because the parameters come from the same particles that are then moved, expectations
    under an adapted kernel carry a bias of order 1/N; with parameters that were found by an earlier run there is none.
    """

    name: ClassVar[str]
    gradient: ClassVar[bool]
    """Whether `sweep` needs the gradient of the log-density."""
    references: ClassVar[tuple[Reference, ...]]

    @abstractmethod
    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        """The parameters before anything was seen, for dimension `d`."""

    @abstractmethod
    def fit(self, parameters: Parameters, position: Tensor, weight: Tensor) -> Parameters:
        """Learn scales from the positions (N, d) and their normalised weights (N,)."""

    @abstractmethod
    def learn(self, parameters: Parameters, acceptance: float) -> Parameters:
        """Learn the step size from the mean acceptance of a sweep."""

    @abstractmethod
    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        """Move every particle once. `state` must have come from `target.evaluate` with what this kernel needs."""

    @abstractmethod
    def describe(self, parameters: Parameters) -> dict[str, float]:
        """What the trace shows of the parameters."""


def select(accept: Tensor, proposal: State, state: State) -> State:
    """The proposal where `accept` (N,) is true, the old state elsewhere."""
    return {k: torch.where(accept.view(-1, *[1] * (old.ndim - 1)), proposal[k], old) for k, old in state.items()}


def accepted(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The Metropolis decision: acceptance probabilities min(1, exp(log_ratio)) (N,) and which proposals are taken."""
    probability = torch.exp(log_ratio.clamp(max=0.0))
    return probability, rng.at("accept").uniform((len(log_ratio),), dtype=torch.float64) < probability
