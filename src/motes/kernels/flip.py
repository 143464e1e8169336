"""Random-scan Metropolis on whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.dynamics.levels import levels_of
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class Flip(Kernel):
    """Random-scan Metropolis: a random coordinate is proposed to take another level, all levels being equally likely.

    A proposal is accepted with probability min(1, p(proposal) / p(x)). Exact, without gradients or anything to tune;
    most proposals are refused where the density is low almost everywhere.

    References:
        Metropolis, Rosenbluth, Rosenbluth, Teller & Teller (1953), Equation of state calculations by fast computing
        machines, Journal of Chemical Physics 21(6).

    Args:
        updates: proposals a sweep; None is as many as there are coordinates.

    Raises:
        ValueError: updates is below 1.
    """

    updates: int | None = None

    name: ClassVar[str] = "flip"
    gradient: ClassVar[bool] = False
    discrete: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (cited("metropolis1953", "the flip kernel"),)

    def __post_init__(self) -> None:
        if self.updates is not None and self.updates < 1:
            raise MotesError(f"updates must be at least 1, or None for as many as coordinates, not {self.updates}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        (n, d), levels = state["position"].shape, levels_of(target)
        updates, rate = self.updates or d, torch.zeros(n, dtype=torch.float64)
        # another level is a step of 1 to levels - 1 around the circle
        where, step = rng.at("where").integers((n, updates), d), rng.at("step").integers((n, updates), levels - 1) + 1
        for k in range(updates):
            x, place = state["position"], where[:, k : k + 1]
            new = torch.remainder(x.gather(1, place) + step[:, k : k + 1], levels)
            proposal = target.evaluate(x.scatter(1, place, new), False)
            ratio = target.log_density(proposal) - target.log_density(state)
            acceptance, accept = accepted(rng.at(f"update-{k}"), ratio)
            state, rate = select(accept, proposal, state), rate + acceptance
        return Sweep(state, rate / updates, updates)
