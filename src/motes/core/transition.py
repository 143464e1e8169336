"""The protocol by which a step of one domain enters a model of another."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Transition(Protocol):
    """One normal step of a Markov chain: x' = mean + deviation * N(0, I), given the state x and a condition.

    States are tensors (N, ...), a row a particle. The condition is what else the step depends on: parameters, or the
    state of another chain, as tensors of N rows; None for a step that needs nothing. A class with these methods is a
    transition without saying so; one that says so inherits `log_density`. `motes.testing.check_transition` tries one.

    >>> import torch
    >>> from motes.core import Transition
    >>> class Decay(Transition):
    ...     def mean(self, state, condition=None):
    ...         return 0.9 * state
    ...     def deviation(self, state, condition=None):
    ...         return torch.tensor(0.5)
    >>> Decay().log_density(torch.zeros(2, 1), torch.zeros(2, 1)).exp()
    tensor([0.7979, 0.7979], dtype=torch.float64)
    """

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        """(N, ...) like the state."""
        ...

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        """Standard deviations, all positive, of a shape that broadcasts to the state's."""
        ...

    def log_density(self, new: Tensor, state: Tensor, condition: Any = None) -> Tensor:
        """(N,) float64, nats: the log-density of the next states `new` (N, ...) given these."""
        mean = self.mean(state, condition).to(torch.float64)
        deviation = self.deviation(state, condition).to(mean).expand_as(mean)
        each = -0.5 * ((new - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
        return each.reshape(len(each), -1).sum(1)
