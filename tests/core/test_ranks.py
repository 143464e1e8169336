"""Ranks of truths among draws: uniform ones pass at the stated level, those of draws that are too narrow do not."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from motes import Rng
from motes.core import joined
from motes.core.estimate.ranks import chi_squared_tail, farthest, uniform_p_value

DRAWS = 9


def ranks(width: float, n: int = 2000) -> torch.Tensor:
    """Ranks of standard normal truths among draws of that width."""
    rng = Rng(0)
    truth, draws = rng.at("truth").normal((n, 1)), width * rng.at("draws").normal((n, DRAWS))
    return (draws < truth).sum(1)


@pytest.mark.parametrize("freedom", [1, 9, 40])
@pytest.mark.parametrize("statistic", [0.3, 12.0, 90.0])
def test_the_tail_is_that_of_scipy(freedom, statistic) -> None:
    assert float(chi_squared_tail(statistic, freedom)) == pytest.approx(stats.chi2.sf(statistic, freedom), rel=1e-9)


@pytest.mark.parametrize("beyond", [1e-3, 1e-3 / 257])
def test_the_quantile_is_that_of_scipy(beyond) -> None:
    assert joined._chi_squared(beyond, 7) == pytest.approx(stats.chi2.isf(beyond, 7), rel=1e-12)


def test_ranks_tell_draws_that_are_too_narrow() -> None:
    right, narrow = ranks(1.0), ranks(0.8)
    assert uniform_p_value(right, DRAWS) > 1e-3 and farthest(right.numpy(), DRAWS) < 4
    assert uniform_p_value(narrow, DRAWS) < 1e-6 and farthest(narrow.numpy(), DRAWS) > 4.9
    count = torch.bincount(right, minlength=DRAWS + 1).numpy()
    assert uniform_p_value(right, DRAWS) == pytest.approx(stats.chisquare(count).pvalue, rel=1e-9)
