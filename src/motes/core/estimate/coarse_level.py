"""How far means are off for another reason than the number of particles: some of them by a coarser rule, beside them.

A rule with a step (of time, of temperature) and the same rule with longer steps differ by the error of the steps. Where
both are driven by the same random numbers, the difference of their means is seen through little noise: the levels of
multilevel Monte Carlo. The error bars of means carry it, as that of the log evidence carries
`core/estimate/systematic.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.estimate.draws import Function, values
from motes.core.estimate.estimate import Estimate
from motes.core.files import schema
from motes.core.tree import PyTree
from motes.core.weights import normalise
from motes.errors import FileError, MotesError

FEWEST = 2
"""Fewer coarser particles than this tell nothing."""
UNKNOWN = "too few particles by the coarser rule have weight to know the error of the steps: use more of both"


@dataclass(frozen=True)
class CoarseLevel:
    """Some of a run's particles by a coarser rule, coupled with the particles themselves.

    Attributes:
        view: M of them, as the model shows particles; None where they are the particles `beside`, under other weights.
        log_weight: (M,) float64, nats, not normalised.
        beside: (M,) int64, the particle that each is coupled with.
        share: what part of the difference between the two levels the error of the finer one is.
    """

    view: PyTree | None
    log_weight: Tensor
    beside: Tensor
    share: float

    def error(self, f: Function, fine: Tensor, log_weight: Tensor) -> Tensor:
        """How far the mean of `f` may be off for the rule, like the mean; NaN where too few are left to tell.

        Args:
            f: of the view, as `Run.mean` takes it.
            fine: (N, ...) what it says of all particles.
            log_weight: (N,) theirs, nats.

        Raises:
            MotesError: `f` says nothing of the coarser particles: it is no function of what it is given.
        """
        own, beside = log_weight[self.beside], fine[self.beside]
        if len(own) < FEWEST or not float(torch.minimum(own.max(), self.log_weight.max())) > -math.inf:
            return torch.full(fine.shape[1:], math.nan, dtype=torch.float64)
        coarse = beside if self.view is None else values(self.view, f, self.log_weight > -math.inf)
        change = torch.tensordot(normalise(self.log_weight), coarse, dims=1)
        return self.share * (change - torch.tensordot(normalise(own), beside, dims=1)).abs()

    def added(self, estimate: Estimate[Tensor], f: Function, fine: Tensor, log_weight: Tensor) -> Estimate[Tensor]:
        """The estimate of the mean of `f` with this error in its standard error; arguments as for `error`."""
        try:
            error = self.error(f, fine, log_weight)
        except MotesError as said:
            reason = (
                estimate.reason or f"nothing is known of the error of the steps, since f is asked of others too: {said}"
            )
            return replace(estimate, se=torch.full_like(estimate.se, math.nan), reason=reason)
        reason = estimate.reason or (UNKNOWN if bool(error.isnan().any()) else "")
        return replace(estimate, se=torch.hypot(estimate.se, error), reason=reason)

    def state(self) -> dict[str, PyTree]:
        """Everything as tensors, for a file."""
        share = torch.tensor(self.share, dtype=torch.float64)
        return {"view": self.view, "log_weight": self.log_weight, "beside": self.beside, "share": share}

    @classmethod
    def from_state(cls, state: Any, n: int) -> CoarseLevel:
        """The level that `state` described, beside `n` particles.

        Raises:
            FileError: it is none.
        """
        parts = schema.record(
            view=schema.anything,
            log_weight=schema.tensor(torch.float64, None),
            beside=schema.tensor(torch.int64, None, low=0, high=n - 1),
            share=schema.tensor(torch.float64, low=0, nan=False),
        )
        found = parts(state, "coarse")
        m = len(found["log_weight"])
        if len(found["beside"]) != m:
            raise FileError(f"coarse speaks of {m} particles and of {len(found['beside'])}")
        for where, leaf in tree.leaves(found["view"], "coarse['view']") if found["view"] is not None else ():
            if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != m:
                raise schema.refuse(leaf, where, f"a tensor ({m}, ...)")
        return cls(found["view"], found["log_weight"], found["beside"], float(found["share"]))


def joined(levels: Sequence[CoarseLevel | None], rows: Sequence[int], shift: Sequence[float]) -> CoarseLevel | None:
    """The level of several populations together; None unless all have one.

    Args:
        levels: one a population.
        rows: how many particles come before those of each.
        shift: what is added to the log-weights of each, nats.
    """
    found = [level for level in levels if level is not None]
    if len(found) < len(levels):
        return None
    views = [level.view for level in found]
    return CoarseLevel(
        None if any(view is None for view in views) else tree.joined(views),
        torch.cat([level.log_weight + s for level, s in zip(found, shift, strict=True)]),
        torch.cat([level.beside + row for level, row in zip(found, rows, strict=False)]),
        max(level.share for level in found),
    )
