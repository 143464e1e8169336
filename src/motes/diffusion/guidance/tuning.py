"""The knobs of training-free guidance, found by doubling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from motes.diffusion.guidance.training_free import TrainingFree
from motes.errors import MotesError

START = TrainingFree(rho=0.25, mu=0.25, smooth=0.1)
KNOBS = ("rho", "mu", "smooth")


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        best: the guidance with the highest score.
        score: its score.
        tried: every guidance that was tried, with its score, in order.
    """

    best: TrainingFree
    score: float
    tried: tuple[tuple[TrainingFree, float], ...]


def tune(
    score: Callable[[TrainingFree], float], *, start: TrainingFree = START, beam: int = 3, rounds: int = 6
) -> Tuned:
    """A beam search over rho, mu and smooth: each round doubles one knob of each of the best so far.

    A guidance is scored once. The search ends when a round changes the beam no more. Give `score` few images and a
    fixed seed: the comparison is paired then.

    Args:
        score: maps a guidance to what is to be high, for example the mean of a quality over a small run.
        start: where the search begins; a knob that is 0 stays 0.
        beam: how many are kept.
        rounds: rounds at most.

    Raises:
        ValueError: a score that is NaN, or a beam or rounds below 1.

    References:
        Ye et al. (2024), TFG: Unified Training-Free Guidance for Diffusion Models, NeurIPS, section 4.2.

    Example:
        >>> found = tune(lambda g: -abs(g.rho - 2) - abs(g.mu - 0.5))
        >>> found.best.rho, found.best.mu
        (2.0, 0.5)
    """
    if beam < 1 or rounds < 1:
        raise MotesError(f"beam and rounds must be at least 1, not {beam} and {rounds}")
    tried: dict[TrainingFree, float] = {}

    def ask(guidance: TrainingFree) -> None:
        if guidance not in tried:
            tried[guidance] = value = float(score(guidance))
            if math.isnan(value):
                raise MotesError(f"the score of {guidance} is NaN")

    ask(start)
    kept: list[TrainingFree] = []
    for _ in range(rounds):
        best = sorted(tried, key=lambda g: -tried[g])[:beam]
        if best == kept:
            break
        kept = best
        for guidance in kept:
            for knob in KNOBS:
                if getattr(guidance, knob):
                    ask(replace(guidance, **{knob: 2 * getattr(guidance, knob)}))
    top = max(tried, key=lambda g: tried[g])
    return Tuned(top, tried[top], tuple(tried.items()))
