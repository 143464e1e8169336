"""Sets of answers that hold the right one with a chosen probability, by split conformal prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.conformal import conformal_quantile
from motes.language.uncertainty.answers import Given, answers_of
from motes.language.uncertainty.semantic import Clusters, labels_of, shares


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
