"""Where the drawn texts show no spread, there is a reason in the place of an error bar of zero."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from motes.language.uncertainty import (
    Answers,
    ByKey,
    contextual_entropy_reduction,
    good_turing,
    semantic_entropy,
    sequence_entropy,
    shapley_uncertainty,
)
from motes.language.uncertainty.shapley import _entropy, _second

LETTERS = list("abcdefghij")


def exact_spread(n: int, p: tuple[float, ...]) -> float:
    """The standard deviation of the entropy of the shares of n draws, over all outcomes."""
    moments = [0.0, 0.0]
    for head in itertools.product(range(n + 1), repeat=len(p) - 1):
        if sum(head) <= n:
            count = (*head, n - sum(head))
            ways = math.factorial(n) / math.prod(map(math.factorial, count))
            q = ways * math.prod(a**k for a, k in zip(p, count, strict=True))
            h = -sum(k / n * math.log(k / n) for k in count if k)
            moments = [moments[0] + q * h, moments[1] + q * h * h]
    return math.sqrt(moments[1] - moments[0] ** 2)


@pytest.mark.parametrize("count", [(20, 20), (12, 28), (13, 13, 13)])
def test_the_error_of_an_entropy_has_its_second_order(count):
    """Within 5 % of the truth; the delta method alone says 0 for equal shares."""
    texts = [letter for letter, k in zip("abc", count, strict=False) for _ in range(k)]
    n = len(texts)
    truth = exact_spread(n, tuple(k / n for k in count))
    assert semantic_entropy(texts, ByKey(str)).se == pytest.approx(truth, rel=0.05)
    assert shapley_uncertainty(texts, torch.eye(len(count))).se == pytest.approx(truth, rel=0.05)
    twin = Answers(texts).estimate(0.0, torch.tensor([-math.log(texts.count(t) / n) for t in texts]).double())
    assert math.isnan(twin.se) or twin.se < 0.98 * semantic_entropy(texts, ByKey(str)).se


def test_the_second_derivative_of_the_kernel_entropy():
    """Against automatic differentiation; with meanings that are alike fully or not at all, (meanings - 1) / 2."""
    w = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    alike = torch.tensor([[1, 0.5, 0.2], [0.5, 1, 0.3], [0.2, 0.3, 1]], dtype=torch.float64)
    move = torch.autograd.functional.hessian(lambda z: _entropy(z, alike), w) @ (torch.diag(w) - torch.outer(w, w))
    assert _second(w, alike) == pytest.approx(float(torch.trace(move @ move)) / 2)
    alike = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert _second(w, alike) == pytest.approx(0.5)
    assert _second(w, torch.eye(3, dtype=torch.float64)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "find, what",
    [
        (lambda: semantic_entropy(LETTERS, ByKey(str)), "no two texts mean the same"),
        (lambda: semantic_entropy(["a"] * 10, ByKey(str)), "3 / ess"),
        (lambda: shapley_uncertainty(LETTERS, torch.eye(10)), "no two texts mean the same"),
        (lambda: shapley_uncertainty(["a"] * 10, torch.eye(1)), "3 / ess"),
        (lambda: good_turing(LETTERS), "no text was drawn twice"),
        (lambda: good_turing(["a"] * 10), "3 / ess"),
        (lambda: sequence_entropy(Answers(["a"] * 10, log_prob=torch.full((10,), -0.1).double())), "3 / ess"),
        (lambda: contextual_entropy_reduction(["a", "b"] * 5, ["c", "d"] * 5, ByKey(str)).agreement, "3 / ess"),
    ],
)
def test_too_few_texts_give_a_reason(find, what):
    found = find()
    assert math.isnan(found.se) and what in found.reason


def test_copies_of_different_weight_are_not_alike():
    """A text of weight zero does not make a spread, and one of another number does."""
    log_prob = torch.tensor([-0.1] * 9 + [-2.0], dtype=torch.float64)
    weight = torch.tensor([0.0] * 9 + [-torch.inf], dtype=torch.float64)
    assert sequence_entropy(Answers(["a"] * 9 + ["b"], log_prob=log_prob)).se > 0
    assert math.isnan(sequence_entropy(Answers(["a"] * 9 + ["b"], weight, log_prob)).se)
