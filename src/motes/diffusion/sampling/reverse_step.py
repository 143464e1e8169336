"""A step of a reverse sampler as a transition that models of other domains take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from motes.core.transition import Transition
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.transition import Transitions
from motes.errors import MotesError


@dataclass(frozen=True)
class ReverseStep(Transition):
    """Step k of a reverse sampler: a normal law given the state x_t, and given a condition where the model takes one.

    Args:
        denoiser: the model; or, for one that is told a condition, a function of the condition that returns it.
        table: the steps of the sampler, from `transitions`, each with noise.
        k: which of them, from 0.

    Raises:
        MotesError: there is no such step, it has no noise, or it looks back at the prediction before ("multistep").

    Example:
        >>> import torch
        >>> from motes.diffusion import ReverseStep, VariancePreserving, gaussian, transitions
        >>> process = VariancePreserving()
        >>> model = gaussian(process, torch.zeros(1), torch.eye(1))
        >>> step = ReverseStep(model, transitions(process, 10), 9)
        >>> step.mean(torch.ones(3, 1)).shape, step.log_density(torch.ones(3, 1), torch.ones(3, 1)).shape
        (torch.Size([3, 1]), torch.Size([3]))
    """

    denoiser: Denoiser | Callable[[Any], Denoiser]
    table: Transitions
    k: int

    def __post_init__(self) -> None:
        if not 0 <= self.k < self.table.steps:
            raise MotesError(f"step {self.k} of a table of {self.table.steps}, which are counted from 0")
        if self.table.back is not None:
            raise MotesError("a step of this table looks back at the prediction before; use one of first order")
        if not float(self.table.std[self.k]) > 0:
            raise MotesError(f"step {self.k} has no noise, so that its law has no density")

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        denoiser = self.denoiser if isinstance(self.denoiser, Denoiser) else self.denoiser(condition)
        return self.table.mean(self.k, state, denoiser.data(state, float(self.table.times[self.k])))

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        return self.table.std[self.k].to(state)
