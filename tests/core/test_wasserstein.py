"""Sliced Wasserstein distances: closed forms, weights as repeated points, no bias, less variance."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from motes.core.estimate.distances.wasserstein import _squared, sliced_wasserstein
from motes.errors import ShapeError
from motes.rng import Rng


def test_an_affine_image_is_at_its_exact_distance_whatever_the_directions():
    """y = a x + m: W2 along u is quadratic in u, so SW^2 = ((1 - a)^2 tr Cov + |difference of means|^2) / d."""
    x = Rng(0).at("x").normal((200, 5)) * torch.arange(1.0, 6.0).double()
    log_weight = Rng(0).at("w").normal((200,))
    w = torch.softmax(log_weight, 0)
    shift = torch.tensor([1.0, 0, -2, 0, 3]).double()
    y = 1.5 * x + shift
    mean = w @ x
    trace = float((w @ (x - mean).square()).sum())
    exact = (0.25 * trace + float((0.5 * mean + shift).square().sum())) / 5
    found = sliced_wasserstein(x, y, log_weight_x=log_weight, log_weight_y=log_weight, directions=40)
    assert float(found) == pytest.approx(exact, rel=1e-12) and float(found.se) < 1e-12 * exact
    plain = sliced_wasserstein(x, y, log_weight_x=log_weight, log_weight_y=log_weight, directions=40, control=False)
    assert float(plain.se) > 0.05 * exact and abs(float(plain) - exact) < 4.9 * float(plain.se)
    assert float(sliced_wasserstein(x, x, log_weight_x=log_weight, log_weight_y=log_weight)) < 1e-20


def test_gaussians_are_at_the_distance_of_the_closed_form():
    """|m|^2 / d + (s1 - s2)^2 with d = 3; quantile grids in place of draws are not to be had, so 20000 draws, 1 %."""
    x, y = Rng(1).at("x").normal((20000, 3)), 2 * Rng(1).at("y").normal((20000, 3))
    y = y + torch.tensor([1.0, 1.0, 0.0]).double()
    found = sliced_wasserstein(x, y, directions=50)
    assert float(found) == pytest.approx(2 / 3 + 1, rel=0.03)


def test_one_dimension_by_enumeration():
    """Weights that are multiples of 1/12 are repeated points, which all pairings of sorted copies match."""
    x, y = torch.tensor([[0.3, -1.0, 2.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    w, v = torch.tensor([3.0, 4.0, 5.0]).double() / 12, torch.tensor([2.0, 10.0]).double() / 12
    left = np.sort(np.repeat(x[0].numpy(), [3, 4, 5]))
    right = np.sort(np.repeat(y[0].numpy(), [2, 10]))
    expected = np.square(left - right).mean()
    assert float(_squared(x, y, w, v)) == pytest.approx(expected, rel=1e-12)
    small_x, small_y = [0.0, 2.0, 5.0], [1.0, 1.5, -3.0]
    best = min(sum((a - b) ** 2 for a, b in zip(small_x, p, strict=True)) / 3 for p in itertools.permutations(small_y))
    found = sliced_wasserstein(torch.tensor(small_x).view(3, 1), torch.tensor(small_y).view(3, 1))
    assert float(found) == pytest.approx(best, rel=1e-12)


def test_weighted_points_are_repeated_points_in_any_dimension():
    x, y = Rng(2).at("x").normal((4, 3)), Rng(2).at("y").normal((5, 3))
    count = torch.tensor([1, 5, 2, 4])
    weighted = sliced_wasserstein(x, y, log_weight_x=count.double().log() + 7, directions=30)
    repeated = sliced_wasserstein(x.repeat_interleave(count, 0), y, directions=30)
    assert float(weighted) == pytest.approx(float(repeated), rel=1e-12)
    none = torch.cat([x, torch.full((1, 3), math.nan).double()])
    zero = torch.tensor([0.0, 0, 0, 0, -math.inf]).double()
    assert float(sliced_wasserstein(none, y, log_weight_x=zero)) == pytest.approx(
        float(sliced_wasserstein(x, y)), rel=1e-12
    )


def test_control_variates_leave_the_mean_and_take_variance_and_bars_cover():
    """Clouds that are no affine images of each other: 200 seeds of 60 directions against 20000 directions."""
    x = Rng(3).at("x").normal((100, 4)) * torch.tensor([1.0, 2.0, 0.5, 1.0]).double()
    y = Rng(3).at("y").exponential((80, 4)) * torch.tensor([1.0, 1.0, 3.0, 0.2]).double()
    truth = sliced_wasserstein(x, y, directions=20000, seed=10**6)
    runs = {c: [sliced_wasserstein(x, y, directions=60, control=c, seed=s) for s in range(200)] for c in (True, False)}
    error = {c: np.array([float(e) - float(truth) for e in r]) for c, r in runs.items()}
    se = np.array([float(e.se) for e in runs[True]])
    assert abs(error[True].mean()) < 4.9 * (error[True].std() / math.sqrt(200) + float(truth.se))
    assert error[True].var() < error[False].var() / 10
    covered = (np.abs(error[True]) < stats.t.ppf(0.975, 59) * se).mean()
    assert 0.88 < covered <= 1, covered
    assert (np.abs(error[True]) < 0.5 * se).mean() < 0.6  # the broken twin


def test_what_cannot_be_compared():
    x = torch.zeros(3, 2)
    with pytest.raises(ShapeError, match="must be"):
        sliced_wasserstein(x, torch.zeros(3, 1))
    with pytest.raises(ShapeError, match="log-weights for"):
        sliced_wasserstein(x, x, log_weight_x=torch.zeros(2).double())
    with pytest.raises(ShapeError, match="not finite"):
        sliced_wasserstein(x, x + math.inf)
    with pytest.raises(ValueError, match="2 or more"):
        sliced_wasserstein(x, x, directions=1)
