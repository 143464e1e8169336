"""Which question to ask next: the one after which conformal sets are smallest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.conformal import check_share, conformal_quantile
from motes.errors import MotesError, ShapeError
from motes.rng import Rng

History = tuple[tuple[int, int], ...]
"""Questions and their answers, in the order of asking."""


def entropy_bound(sizes: Tensor, alpha: float, count: int) -> float:
    """A bound on the conditional entropy from the sizes of sets that hold the truth with probability 1 - alpha, nats.

    H(Y | X) <= h(alpha) + alpha log K + E[log max(|C|, 1)] for alpha <= 1/2: whether the set holds the truth costs at
    most h(alpha) = -alpha log alpha - (1 - alpha) log(1 - alpha), the truth inside at most log |C|, outside log K.

    Args:
        sizes: (n,) sizes of the sets, whose mean stands for the expectation.
        alpha: the probability of a miss, at most 1/2.
        count: K, the number of labels.
    """
    check_share("alpha", alpha)
    if alpha > 0.5:
        raise MotesError(f"the bound holds for alpha up to 1/2, not {alpha}")
    inside = -alpha * math.log(alpha) - (1 - alpha) * math.log1p(-alpha)
    return inside + alpha * math.log(count) + float(sizes.double().clamp(min=1).log().mean())


@dataclass(frozen=True)
class InformationPursuit:
    """Ask the question whose answer makes the mean conformal set smallest, until one label is left.

    A predictor gives probabilities (K,) of the labels from what was asked. After h questions the set is
    {y: 1 - p(y | history) <= threshold_h}, where threshold_h comes from calibration cases in which h questions were
    asked at random: it then holds the true label with probability at least 1 - alpha for a new case asked *at random*.
    Asked by this rule the histories are others, and the promise is no longer exact. The next question q minimises
    sum_a p(a | history, q) |C(history, q, a)|, of equals the first; probabilities that are off in the large then do no
    harm, as they do in entropies.

    References:
        Chan, Ge, Dobriban, Hassani & Vidal (2025), Conformal information pursuit for interactively guiding large
        language models, NeurIPS, arXiv 2507.03279.

    Args:
        predict: history to (K,) probabilities of the labels.
        answer_law: history and question to probabilities (A,) of its answers.
        questions: how many questions there are.
        thresholds: one for each number of questions asked, from `calibrate`.
    """

    predict: Callable[[History], Tensor]
    answer_law: Callable[[History, int], Tensor]
    questions: int
    thresholds: Sequence[float]

    def set_of(self, history: History) -> Tensor:
        """(K,) bool, the labels that are still possible; with more questions than calibrated, by the last threshold."""
        threshold = self.thresholds[min(len(history), len(self.thresholds) - 1)]
        return 1 - checked(self.predict(history)) <= threshold

    def expected_size(self, history: History, question: int) -> float:
        """The mean size of the set after a question."""
        law = self.answer_law(history, question).tolist()
        return sum(p * float(self.set_of((*history, (question, a))).sum()) for a, p in enumerate(law) if p > 0)

    def next(self, history: History) -> int | None:
        """The question to ask; None if the set has at most one label, or nothing is left to ask."""
        asked = {q for q, _ in history}
        left = [q for q in range(self.questions) if q not in asked]
        if not left or int(self.set_of(history).sum()) <= 1:
            return None
        return min(left, key=lambda q: self.expected_size(history, q))

    def pursue(self, reply: Callable[[int], int], most: int | None = None) -> History:
        """Ask until the set has one label, nothing is left to ask, or `most` questions were asked."""
        history: History = ()
        while most is None or len(history) < most:
            question = self.next(history)
            if question is None:
                break
            history = (*history, (question, int(reply(question))))
        return history


def calibrate(
    rng: Rng,
    predict: Callable[[History], Tensor],
    reply: Callable[[int, int], int],
    *,
    labels: Sequence[int],
    questions: int,
    alpha: float,
) -> list[float]:
    """Thresholds for 0, 1, ..., `questions` questions, from cases that are asked in a random order each.

    Args:
        rng: for the orders.
        predict: history to (K,) probabilities of the labels.
        reply: case and question to the answer.
        labels: the true label of each calibration case.
        questions: how many questions there are.
        alpha: the share of misses that is allowed.
    """
    if not labels:
        raise ShapeError("there is no calibration case")
    scores = torch.zeros(questions + 1, len(labels), dtype=torch.float64)
    for case, label in enumerate(labels):
        history: History = ()
        order = rng.at("order", inner=case).permutation(questions).tolist()
        for asked in range(questions + 1):
            scores[asked, case] = 1 - float(checked(predict(history))[label])
            if asked < questions:
                history = (*history, (order[asked], int(reply(case, order[asked]))))
    return [conformal_quantile(row, alpha) for row in scores]


def checked(probability: Tensor) -> Tensor:
    """(K,) float64, and an error if they are no probabilities."""
    probability = probability.double()
    if probability.ndim != 1 or not torch.isclose(probability.sum(), torch.ones((), dtype=torch.float64), atol=1e-5):
        raise ShapeError(f"a predictor must return probabilities (K,) that sum to 1, not {probability!r}")
    return probability
