"""By which power of the weights unfinished texts are resampled, and when."""

from __future__ import annotations

from collections.abc import Callable

from motes.errors import check_name

Anneal = Callable[[float, float], float]
"""Maps (ESS / N, progress in [0, 1]) to the T >= 1 whose power 1/T of the weights is resampled by."""


def by_ess(ess: float, progress: float) -> float:
    """T = max(1, (1 - progress) / ess) while less than half is written and ess is below one half, else 1.

    After resampling by w^(1/T) a particle keeps the weight w^(1 - 1/T), which makes the population as properly weighted
    as before (published particle filters drop that factor, and with it their target).

    References:
        Puri, Sudalairaj, Xu, Xu & Srivastava (2025), A probabilistic inference approach to inference-time scaling of
        LLMs using particle-based Monte Carlo methods, arXiv 2502.01618, and its later entropic annealing.
    """
    return max(1.0, (1 - progress) / ess) if ess < 0.5 and progress < 0.5 else 1.0


def by_progress(ess: float, progress: float) -> float:
    """T = 2 - progress, whatever the weights."""
    return 2.0 - min(1.0, progress)


WAYS: dict[str, Anneal] = {"ess": by_ess, "progress": by_progress}


def choose(anneal: str | Anneal | None) -> Anneal | None:
    """The schedule of that name, or itself."""
    if anneal is None or callable(anneal):
        return anneal
    check_name("schedule of annealing", anneal, WAYS)
    return WAYS[anneal]
