"""What a tempering run knows of its own trustworthiness, and when it begins anew with more care."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.systematic import Systematic
from motes.core.remark import ALL, Remark
from motes.kernels.stationarity.drift import CERTAIN, MeanDrift, lagged

LAGGING = 4.0
"""Standard errors beyond which a lag of the run as a whole is no chance."""
FINE = 0.3
"""With care, a change of temperature costs this part of the effective sample size that it costs otherwise."""
FAR = 20.0
"""Nats by which the next rise of the temperature may reweigh a particle whose change by a move counts in proportion."""
SHARE = 0.08
"""The share of a run's evaluations that the last look at its particles may cost; it has one sweep at the least."""
HIGH, ADAPTATION = 64, 0.1
"""In `HIGH` dimensions and more the error bar of the log evidence carries `ADAPTATION` sqrt(d) / N nats a temperature
for what a run learns from the very particles that it moves (how many sweeps they need most of all): 64 particles in 64
dimensions and 256 in 300, on their way to Gaussians 12 times as narrow in variance, were both 0.6 nats too low, and
frozen runs were not."""


@dataclass(frozen=True)
class Care:
    """The state of a run's tests of itself.

    Attributes:
        careful: whether this is the second attempt: finer steps, moves until the means no longer drift, in non-centred
            coordinates where `dependence` says so.
        begun: the time at which this attempt began.
        why: why the first attempt was given up, in words.
        dependence: the coordinates whose scales depend on others, as `Dependence.to_json`.
        evaluations: of this attempt, a particle.
        lag: the sum over temperatures of what the moves changed in the mean log-likelihood times the next rise of the
            temperature, nats, and its variance: how much too low the log evidence may be.
        unsettled: temperatures at which the means drifted to the end.
        drift: how far the means drifted in the last look, in standard errors, and how far they may.
    """

    careful: bool = False
    begun: int = 0
    why: str = ""
    dependence: list[list[int]] | None = None
    evaluations: float = 1.0
    lag: list[float] = field(default_factory=lambda: [0.0, 0.0])
    unsettled: int = 0
    drift: list[float] = field(default_factory=lambda: [0.0, math.inf])

    def to_shared(self) -> dict[str, Any]:
        """Everything as a tree, for the particles' `shared`."""
        return asdict(self)

    def again(self, t: int, why: str, dependence: list[list[int]] | None = None) -> Care:
        """The state with which a second attempt begins at time `t`."""
        return Care(careful=True, begun=t, why=why, dependence=dependence)

    def after(
        self, evaluations: float, before: Tensor, now: Tensor, weight: Tensor, family: Tensor, raised: float
    ) -> Care:
        """The state after the moves at one temperature.

        Args:
            evaluations: of the moves, a particle.
            before, now: (N,) the log-likelihood before and after them.
            weight: (N,) normalised.
            family: (N,) int64, see `kernels.drift.drift`.
            raised: by how much the temperature rises next.
        """
        change = torch.where((weight > 0) & torch.isfinite(now - before), now - before, 0.0)
        if raised * float(change.abs().max()) > FAR:  # a wall: what the moves changed in the mean weight is exact
            gain = [(raised * (x - torch.maximum(before, now).max())).exp() for x in (before, now)]
            change = (gain[1] - gain[0]) / (weight @ gain[0]).clamp(min=1e-300) / raised
        mean = weight @ change
        off = torch.zeros_like(weight).index_add_(0, family, weight * (change - mean))
        lag = [self.lag[0] + raised * float(mean), self.lag[1] + raised**2 * float(off.square().sum())]
        return replace(self, evaluations=self.evaluations + evaluations, lag=lag)

    @property
    def lagging(self) -> float:
        """The lag in standard errors."""
        return self.lag[0] / math.sqrt(self.lag[1]) if self.lag[1] > 0 else 0.0

    def trouble(self, found: MeanDrift | None) -> str:
        """Why this attempt cannot be trusted, in words, after moves with the drift `found`; empty if it can."""
        if found is not None and found.largest > CERTAIN:
            return f"the means drifted by {found.largest:.1f} standard errors at one temperature"
        if abs(self.lagging) > LAGGING:
            return f"the log-likelihood lagged behind the temperature by {abs(self.lagging):.1f} standard errors"
        if self.drift[0] > self.drift[1]:
            return f"smaller steps moved the means by {self.drift[0]:.1f} standard errors at temperature 1"
        return ""

    def remarks(self) -> list[str]:
        """What the user must be told."""
        if self.drift[0] > self.drift[1]:
            return [
                Remark(
                    f"the particles have not settled: steps of other lengths at temperature 1 moved their means by "
                    f"{self.drift[0]:.1f} standard errors, and {self.drift[1]:.1f} is the limit. Take more particles, "
                    "another parametrisation (non-centred, if scales are unknown), or another kernel",
                    ALL,
                    withholds=True,
                )
            ]
        if self.unsettled:
            where, advice = (
                f"at {self.unsettled} temperatures",
                "Take smaller steps (conditional_ess nearer to 1) or another parametrisation",
            )
            return [lagged(where, "the temperature", advice)]
        return []

    def systematic(self, learnt: float = 0.0) -> Systematic | None:
        """How far the log evidence may lag behind the temperature, where that asked for care, and be off by `learnt`.

        Args:
            learnt: nats that the log evidence may be too low since moves are learnt from the particles.
        """
        if not self.careful:
            text = (
                f"moves are learnt from few particles for this many dimensions, by which the log evidence may be "
                f"{learnt:.2g} nats too low. Take more particles, or freeze the run and sample with another seed"
            )
            return Systematic(learnt, 0.0, text) if learnt else None
        lag, noise = abs(self.lag[0]), math.sqrt(self.lag[1])
        text = (
            f"the particles lagged behind the temperature: the moves went on changing the log-likelihood, by which the "
            f"log evidence may be {lag:.2g} nats off. Take smaller steps (conditional_ess nearer to 1) or another "
            "parametrisation"
        )
        return Systematic(lag + learnt, max(0.0, lag - 2 * noise), text)
