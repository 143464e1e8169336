"""What a context does to the answers: entropy with and without it, over common meanings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from motes.core.estimate.estimate import Estimate
from motes.language.uncertainty.answers import Given, answers_of, entropy_of, shares
from motes.language.uncertainty.clusters import Meaning, cluster
from motes.language.uncertainty.semantic import semantic_entropy


@dataclass(frozen=True)
class ContextEffect:
    """Answers without and with a context, by meaning.

    Attributes:
        reduction: semantic entropy without minus with, nats.
        agreement: the probability that an answer with and one without the context mean the same.
        consistency: the probability that two answers from both halves mixed evenly mean the same.
        without: semantic entropy without the context.
        with_context: semantic entropy with it.
    """

    reduction: Estimate[float]
    agreement: Estimate[float]
    consistency: float
    without: Estimate[float]
    with_context: Estimate[float]


def contextual_entropy_reduction(
    without: Given, with_context: Given, meaning: Meaning, *, how: str = "first"
) -> ContextEffect:
    """How many nats of doubt a context takes away, and whether the answers stay the same.

    All answers are clustered together, so that a meaning is the same one in both. The reduction is H(without) -
    H(with): zero in the mean for a context that does not matter, at most H(without), and negative for a context that
    confuses. The published method feeds this and a consistency over both sets to a trained network; the numbers are
    given here and no network.

    References:
        Yuan, Zhang & Kao (2025), A context-aware dual-metric framework for confidence estimation in large language
        models, arXiv 2508.00600.

    Args:
        without: answers to the question alone: a run, `Answers`, or a list of texts.
        with_context: independent answers to the question with its context.
        meaning: who judges what means the same.
        how: "first" or "components".
    """
    a, b = answers_of(without), answers_of(with_context)
    label = cluster([*a.texts, *b.texts], meaning, how=how)
    count = int(label.max()) + 1
    first, second = label[: a.n], label[a.n :]
    before, after = semantic_entropy(a, first), semantic_entropy(b, second)
    p, q = shares(first, a.weight, count), shares(second, b.weight, count)
    value = float(entropy_of(p) - entropy_of(q))
    reduction = _together(value, before, after, label)
    one, two = a.sample.estimate(0.0, q[first]), b.sample.estimate(0.0, p[second])
    agreement = _together(float(p @ q), one, two, label)
    both = (p + q) / 2
    return ContextEffect(reduction, agreement, float(both @ both), before, after)


def _together(value: float, one: Estimate[float], two: Estimate[float], label: torch.Tensor) -> Estimate[float]:
    reason, parts = one.reason or two.reason, {"cluster": label}
    se, freedom, ess = math.hypot(one.se, two.se), min(one.freedom, two.freedom), min(one.ess, two.ess)
    return Estimate(value, se, reason, freedom, ess=ess, method="delta method", parts=parts)
