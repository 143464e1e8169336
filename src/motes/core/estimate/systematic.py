"""An error of the log evidence that more particles do not cure, as a run has estimated it of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Systematic:
    """How far the log evidence is off for another reason than the number of particles, such as the length of steps.

    A run's error bar carries it, and a run says so where it is more than chance.

    Attributes:
        value: how far it may be, nats, not negative: what an error bar carries. NaN where the run could not tell.
        sure: how far it is at least, allowing for two standard errors of the estimate.
        text: a sentence that says what is off, by how much, and what would mend it.
    """

    value: float
    sure: float
    text: str

    def exceeds(self, error: float) -> bool:
        """Whether it is surely more than a standard error of the log evidence."""
        return self.sure > error

    def added(self, error: float) -> float:
        """The standard error `error` and this together."""
        return math.hypot(error, self.value)
