"""Weighted texts, and what else is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.core.estimate.weighted_sample import WeightedSample
from motes.core.registry import Registry
from motes.core.run import Run
from motes.core.weights import check_log_weight, ess, normalise
from motes.errors import MotesError, ShapeError
from motes.language.uncertainty.scored import Scored


@dataclass(frozen=True)
class Answers:
    """Texts with weights, and what else is known of them.

    Attributes:
        texts: N texts.
        log_weight: (N,) float64, nats, not normalised; None is equal weights.
        log_prob: (N,) float64, the log-probability of each text under the law that the weighted texts follow, nats.
        log_prob_se: the standard error of what is common to all `log_prob`, an estimated log normaliser.
        scored: the tokens and what the model said of each, see `score`.
        run: the run that drew the texts; its genealogy then gives the standard errors.

    Raises:
        ShapeError: there are no texts, or the numbers are not as many as the texts.
    """

    texts: Sequence[str]
    _: KW_ONLY
    log_weight: Tensor | None = None
    log_prob: Tensor | None = None
    log_prob_se: float = 0.0
    scored: Scored | None = None
    run: Run | None = None

    def __post_init__(self) -> None:
        n = len(self.texts)
        if isinstance(self.texts, str) or n == 0:
            raise ShapeError("answers must be a list of at least one text")
        if self.log_weight is None:
            object.__setattr__(self, "log_weight", torch.zeros(n, dtype=torch.float64))
        for name in ("log_weight", "log_prob"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Tensor) or value.shape != (n,)):
                what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ShapeError(f"{name} of {n} texts must be a tensor ({n},), not {what}")
        check_log_weight(self.weighted, None, "answers")
        normalise(self.weighted)  # all weights zero is an error now and not later

    @property
    def n(self) -> int:
        """The number of texts."""
        return len(self.texts)

    @property
    def weighted(self) -> Tensor:
        """(N,) float64, the log-weights."""
        assert self.log_weight is not None
        return self.log_weight

    @property
    def weight(self) -> Tensor:
        """(N,) float64, normalised."""
        return normalise(self.weighted)

    @property
    def ess(self) -> float:
        """The effective sample size."""
        return ess(self.weighted)

    @property
    def sample(self) -> WeightedSample:
        """The texts as draws with weights and families, which gives the errors of what is computed from them."""
        if self.run is None:
            return WeightedSample(self.weighted, called="texts")
        return replace(self.run.weighted_sample, log_weight=self.weighted, called="texts")

    @property
    def no_normaliser(self) -> str:
        """Why what is common to all `log_prob` has no error bar; empty where it has one."""
        if not math.isnan(self.log_prob_se):
            return ""
        why = "" if self.run is None else self.run.standard_error.reason
        return "the log normaliser has no error bar" + (f": {why}" if why else "")

    def distinct(self) -> tuple[Tensor, list[int]]:
        """(N,) int64 which distinct text each is, by tokens where they are known; and the first place of each."""
        keys = self.scored.tokens if self.scored is not None else self.texts
        found: dict[Any, int] = {}
        label = [found.setdefault(key, len(found)) for key in keys]
        first: dict[int, int] = {}
        for place, k in enumerate(label):
            first.setdefault(k, place)
        return torch.tensor(label), list(first.values())

    def need_log_prob(self, why: str) -> Tensor:
        """(N,) the log-probabilities.

        Raises:
            MotesError: they are not known.
        """
        if self.log_prob is None:
            raise MotesError(
                f"{why} needs the log-probability of each text: score_run(run, generation) finds it, or give "
                "Answers(texts, log_weight, log_prob)"
            )
        return self.log_prob.to(torch.float64)


Given = Answers | Run | Sequence[str]
measures: Registry[Callable[..., Estimate[float]]] = Registry("measure of uncertainty", "motes.language.uncertainty")
"""What is estimated of weighted texts: functions of answers that return an `Estimate`, by name."""


def answers_of(given: Given) -> Answers:
    """What was given as `Answers`: a run of texts with its weights, a list of texts with equal ones."""
    if isinstance(given, Answers):
        return given
    if isinstance(given, Run):
        return Answers(given.texts, log_weight=given.log_weight, run=given.alone("a measure of uncertainty"))
    return Answers(given if isinstance(given, str) else list(given))


def entropy_of(share: Tensor) -> Tensor:
    """-sum p log p over the last axis, nats."""
    return -torch.special.xlogy(share, share).sum(-1)


def shares(label: Tensor, weight: Tensor, count: int) -> Tensor:
    """The weight (..., count) of each label (N,) under weights (..., N)."""
    out = torch.zeros(*weight.shape[:-1], count, dtype=torch.float64)
    return out.index_add_(-1, label, weight.to(torch.float64))
