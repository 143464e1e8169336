"""A population of weighted particles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.tree import PyTree
from motes.core.weights import ess, log_mean_exp
from motes.errors import ShapeError


@dataclass(frozen=True)
class Particles:
    """Weighted particles at one time; log-weights are not normalised, so their log-mean-exp is the log evidence so far.

    Attributes:
        x: what belongs to each particle: dicts, tuples and lists of tensors (N, ...) or `core.tree.Leaf`.
        log_weight: (N,) float64, nats.
        ancestor: (N,) int64, slot of the parent before the last resampling opportunity.
        root: (N,) int64, slot of the ancestor at time 0.
        t: number of steps taken.
        shared: what belongs to the population as a whole (a temperature, a step size); saved, never resampled.
        info: what the last step has to say to a diagnostician: numbers that go to the trace and are not carried on.

    Raises:
        ShapeError: the log-weights are no float64 vector, or a leaf of `x` has another number of particles.
    """

    x: PyTree
    log_weight: Tensor
    ancestor: Tensor
    root: Tensor
    t: int = 0
    shared: PyTree = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        w = self.log_weight
        if not isinstance(w, Tensor) or w.ndim != 1 or w.dtype != torch.float64 or len(w) == 0:
            what = f"{tuple(w.shape)} {w.dtype}" if isinstance(w, Tensor) else type(w).__name__
            raise ShapeError(f"log_weight must be a float64 tensor of shape (N,) with N >= 1, not {what} (t={self.t})")
        tree.check(self.x, len(w))

    @classmethod
    def start(
        cls, x: PyTree, log_weight: Tensor, *, shared: PyTree = None, info: dict[str, Any] | None = None
    ) -> Particles:
        """The population at t = 0, with log-weights (N,) float64 (zeros for a plain draw from the initial law)."""
        slot = torch.arange(len(log_weight))
        return cls(x, log_weight, slot, slot, 0, {} if shared is None else shared, info or {})

    @property
    def n(self) -> int:
        """The number of particles."""
        return len(self.log_weight)

    @property
    def log_evidence(self) -> float:
        """The log-mean-exp of the log-weights, nats: the estimate of the log normaliser up to this time."""
        return log_mean_exp(self.log_weight)

    @property
    def ess(self) -> float:
        """The effective sample size (sum w)^2 / sum w^2."""
        return ess(self.log_weight)

    def step(
        self, x: PyTree, log_potential: Tensor, *, shared: PyTree = None, info: dict[str, Any] | None = None
    ) -> Particles:
        """The population one step on: states `x`, log-weights raised by `log_potential` (N,) nats."""
        if not isinstance(log_potential, Tensor) or log_potential.shape != self.log_weight.shape:
            what = tuple(log_potential.shape) if isinstance(log_potential, Tensor) else type(log_potential).__name__
            raise ShapeError(
                f"the log-potential at t={self.t + 1} must have shape ({self.n},), one a particle, not {what}"
            )
        return replace(
            self,
            x=x,
            log_weight=self.log_weight + log_potential.detach().to(self.log_weight),
            t=self.t + 1,
            shared=self.shared if shared is None else shared,
            info=info or {},
        )

    def resampled(self, index: Tensor) -> Particles:
        """The children of the particles `index` (N,) int64: everything per-particle gathered, weights made equal.

        The common log-weight is the log-mean-exp of the old ones, so the log evidence stays what it was.
        """
        return replace(
            self,
            x=tree.take(self.x, index),
            log_weight=torch.full_like(self.log_weight, log_mean_exp(self.log_weight)),
            ancestor=index,
            root=self.root[index],
        )

    def kept(self) -> Particles:
        """The same population, each particle its own parent."""
        return replace(self, ancestor=torch.arange(self.n))
