"""Student's t: its quantiles against scipy, and the intervals that use them."""

import math

import pytest
import torch
from scipy.stats import norm, t

from motes.core.estimate.estimate import Estimate
from motes.core.estimate.student import quantile
from motes.core.estimate.variance import StandardError

LEVELS = (1e-3, 0.5, 0.95, 1 - 6.3e-5, 1 - 1e-9)


@pytest.mark.parametrize("freedom", [0.5, 1, 2, 7, 15.3, 500])
def test_quantiles_agree_with_scipy(freedom):
    for level in LEVELS:
        assert quantile(level, freedom) == pytest.approx(t.isf((1 - level) / 2, freedom), rel=1e-7)


def test_infinitely_many_degrees_of_freedom_are_the_normal_law():
    assert quantile(0.95, math.inf) == pytest.approx(norm.isf(0.025), rel=1e-12)


def test_intervals_of_few_values_are_wide():
    few, many = (
        Estimate(torch.tensor(1.0), torch.tensor(0.1), freedom=3),
        Estimate(torch.tensor(1.0), torch.tensor(0.1)),
    )
    assert float(few.interval()[1]) == pytest.approx(1 + 0.1 * t.isf(0.025, 3))
    assert float(many.interval()[0]) == pytest.approx(1 - 0.1 * norm.isf(0.025))
    assert StandardError(0.2, "spread", freedom=3).reach(0.99) == pytest.approx(0.2 * t.isf(0.005, 3))


@pytest.mark.parametrize(("level", "freedom"), [(0.0, 3), (1.0, 3), (95, 3), (0.95, 0)])
def test_what_is_no_level_is_refused(level, freedom):
    with pytest.raises(ValueError, match="must"):
        quantile(level, freedom)
