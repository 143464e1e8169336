"""Sets of answers that hold the right one with a chosen probability, by split conformal prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError
from motes.language.uncertainty.answers import Given, answers_of, check_share
from motes.language.uncertainty.semantic import Clusters, labels_of, shares


def conformal_quantile(score: Tensor, alpha: float) -> float:
    """The threshold below which a new score falls with probability at least 1 - alpha; +inf if n is too small.

    The ceil((n + 1)(1 - alpha))-th smallest of n calibration scores. The plain (1 - alpha) quantile covers too little:
    interpolated between 9 scores, that for alpha = 0.1 covers 0.82. For n + 1 < 1 / alpha nothing finite covers.
    The rank is computed in exact arithmetic, since
    (n + 1)(1 - alpha) can exceed a whole number by a rounding error.

    Exactly: if the n + 1 scores are exchangeable without ties, coverage is ceil((n + 1)(1 - alpha)) / (n + 1).

    References:
        Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world; Angelopoulos & Bates (2023), Conformal
        prediction: a gentle introduction, section 1.

    Args:
        score: (n,) calibration scores, large where the truth is strange.
        alpha: the share of misses that is allowed, in (0, 1).

    Raises:
        ShapeError: there is no score.
        MotesError: alpha is outside (0, 1), or a score is NaN.
    """
    check_share("alpha", alpha)
    score = torch.as_tensor(score, dtype=torch.float64)
    if score.ndim != 1 or len(score) == 0:
        raise ShapeError(f"calibration scores must be a tensor (n,) with n >= 1, not {tuple(score.shape)}")
    if torch.isnan(score).any():
        raise MotesError("a calibration score is NaN")
    rank = math.ceil((len(score) + 1) * (1 - Fraction(str(alpha))))
    return math.inf if rank > len(score) else float(score.sort()[0][rank - 1])


@dataclass(frozen=True)
class ConformalSets:
    """A calibrated threshold.

    Attributes:
        threshold: candidates with scores up to it belong to the set.
        alpha: the share of misses that is allowed.
        n: how many calibration cases there were.
    """

    threshold: float
    alpha: float
    n: int

    @classmethod
    def fit(cls, score: Tensor, alpha: float) -> ConformalSets:
        """From the scores (n,) of the true answers of n calibration cases."""
        return cls(conformal_quantile(score, alpha), alpha, len(score))

    def sets(self, score: Tensor) -> Tensor:
        """(..., K) bool, which candidates belong to the set, from their scores (..., K)."""
        return score.double() <= self.threshold

    def answers(self, answers: Given, clusters: Clusters, *, how: str = "first") -> dict[str, float]:
        """The meanings that belong to the set: the first text of each, and its weight.

        The score of a meaning is 1 minus its share of the weight, see `strangeness`; if 1 is below the threshold,
        answers that were never drawn belong to the set too, and that is told by the key "" with the weight 0.
        """
        given = answers_of(answers)
        label = labels_of(given, clusters, how)
        share = shares(label, given.weight, int(label.max()) + 1)
        kept = self.sets(1 - share)
        found = {given.texts[label.tolist().index(k)]: float(share[k]) for k in torch.nonzero(kept)[:, 0].tolist()}
        return {**found, **({"": 0.0} if self.threshold >= 1 else {})}


def strangeness(answers: Given, clusters: Clusters, right: int | None, *, how: str = "first") -> float:
    """The calibration score of a question: 1 minus the weight of the meaning that is right, 1 if it was not drawn.

    Args:
        answers: a run, `Answers`, or a list of texts.
        clusters: who judges what means the same, or a cluster for each text.
        right: the place of a text that is right; None if none is.
        how: "first" or "components".
    """
    given = answers_of(answers)
    if right is None:
        return 1.0
    label = labels_of(given, clusters, how)
    return 1 - float(shares(label, given.weight, int(label.max()) + 1)[label[right]])
