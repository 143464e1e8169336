"""Weighted texts, and numbers about them with a standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.variance import mean_se
from motes.core.history.genealogy import Genealogy, spread
from motes.core.particles import Particles
from motes.core.registry import Registry
from motes.core.resampling import find_scheme
from motes.core.run import Run
from motes.core.weights import check_log_weight, ess, normalise
from motes.errors import MotesError, ShapeError
from motes.language.uncertainty.score import Scored
from motes.rng import Rng


@dataclass(frozen=True)
class Uncertainty:
    """A number about weighted texts, nats unless its function says otherwise.

    Attributes:
        value: the estimate.
        se: its standard error; NaN where the texts cannot give one.
        ess: the effective sample size of the weights behind it.
        reason: why `se` is NaN; empty otherwise.
        parts: what the number is made of, by name (a cluster for each text, a share for each answer).
    """

    value: float
    se: float
    ess: float
    reason: str = ""
    parts: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        error = f"no error bar: {self.reason}" if math.isnan(self.se) else f"± {self.se:.2g}"
        return f"{self.value:.5g} {error} (ess {self.ess:.1f})"


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

    def estimate(self, value: float, influence: Tensor, second: float = 0.0, **parts: Any) -> Uncertainty:
        """A value with the standard error of the weighted mean of its influence (N,): the delta method.

        The influence of text i is the derivative of the value by the weight of i; an additive constant does not matter.
        Where it is the same for all texts there is a reason and no error: what they share says nothing of others.

        Args:
            second: the variance times the square of the number of texts that the term of second order adds.
        """
        se, reason = self._spread(influence)
        if not reason and second == 0 and self.alike(influence):
            reason = SAME
        if reason:
            return Uncertainty(value, math.nan, self.ess, reason, parts)
        return Uncertainty(value, math.hypot(float(se), math.sqrt(second) / self.families), self.ess, "", parts)

    def alike(self, value: Tensor) -> bool:
        """Whether a number (N,) is the same for all texts that have weight, but for rounding."""
        inside = value[self.weight > 0]
        return float(inside.max() - inside.min()) <= ROUNDING * float(inside.abs().max())

    @property
    def families(self) -> float:
        """The effective number of independent texts: that of the weights, or of families where texts were resampled."""
        return 1 / spread(self._genealogy.anchors[0].slot, self.weight)

    def bootstrap(
        self, rng: Rng, value: Callable[[Tensor], Tensor], replicates: int = 400, **parts: Any
    ) -> Uncertainty:
        """A value with the standard deviation of what it is for resampled texts, families drawn as a whole.

        Args:
            rng: where the random numbers come from.
            value: maps weights (B, N), normalised, to values (B,).
        """
        plain = float(value(self.weight[None])[0])
        _, reason = self._spread(torch.zeros(self.n, dtype=torch.float64))
        if reason:
            return Uncertainty(plain, math.nan, self.ess, reason, parts)
        family, slot = torch.unique(self._genealogy.anchors[0].slot, return_inverse=True)
        count = len(family)
        drawn = rng.at("bootstrap").integers((replicates, count), count)
        times = torch.zeros(replicates, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        weight = times[:, slot] * self.weight
        weight = weight[weight.sum(1) > 0]
        found = value(weight / weight.sum(1, keepdim=True))
        # n / (n - 1): a resampled spread is that of the sample, with its mean known
        se = float(found.std()) * math.sqrt(count / (count - 1))
        return Uncertainty(plain, se, self.ess, "", parts)

    def _spread(self, value: Tensor) -> tuple[Tensor, str]:
        own = None if self.run is None else self.run.own_error
        if own is not None and own.means:
            return torch.tensor(math.nan, dtype=torch.float64), own.means
        return mean_se(value, self._particles, self._genealogy, SYSTEMATIC)

    @property
    def _particles(self) -> Particles:
        return self.run.particles if self.run is not None else Particles.start({}, self.weighted)

    @property
    def _genealogy(self) -> Genealogy:
        return self.run.genealogy if self.run is not None else Genealogy.start(self.n)


ROUNDING = 1e-12
SAME = "the number is the same for all texts, so their spread says nothing; texts not drawn have at most about 3 / ess"
SYSTEMATIC = find_scheme("systematic")
Given = Answers | Run | Sequence[str]
measures: Registry[Callable[..., Uncertainty]] = Registry("measure of uncertainty", "motes.language.uncertainty")
"""What is estimated of weighted texts: functions of answers that return an `Uncertainty`, by name."""


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


def check_share(name: str, value: object) -> None:
    """A number strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise MotesError(f"{name} must lie strictly between 0 and 1, not {value!r}")
