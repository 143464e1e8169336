"""How long and how fast to train."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

from motes.errors import MotesError, check_at_least, check_share


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Args:
        steps: batches in all.
        batch: examples a batch, drawn with replacement.
        rate: the learning rate of Adam at its highest; it rises over `warm_up` steps and falls like a cosine.
        warm_up: steps until then.
        average: how much of the averaged weights is kept a step, less in the first steps; 0 is no average.
        clip: the largest norm of a gradient; None is any.
        held_out: the share of the examples that training never sees.
        every: steps between two held-out losses, and between two checkpoints.
        most: held-out examples that are looked at.

    Raises:
        ValueError: a value outside its range.
    """

    steps: int = 2000
    _: KW_ONLY
    batch: int = 128
    rate: float = 2e-3
    warm_up: int = 100
    average: float = 0.999
    clip: float | None = 1.0
    held_out: float = 0.1
    every: int = 500
    most: int = 1024

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, batch=self.batch, every=self.every, most=self.most)
        check_share("[0, 1)", average=self.average, held_out=self.held_out)
        if self.rate <= 0 or self.warm_up < 0 or (self.clip is not None and self.clip <= 0):
            raise MotesError(f"need rate > 0, warm_up >= 0, clip > 0, not {self.rate}, {self.warm_up}, {self.clip}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / max(self.warm_up, 1))
        return self.rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))
