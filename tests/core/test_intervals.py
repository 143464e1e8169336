"""Beta laws and their intervals, the law of two correlated normals, and the area under a ROC curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import owens_t

from motes import Rng
from motes.core.estimate.beta import beta_cdf, beta_interval, beta_quantile
from motes.core.estimate.binormal import binormal_cdf
from motes.core.estimate.roc import auroc
from motes.errors import MotesError

SHAPES = [(1, 1), (11, 1), (1, 11), (51, 51), (0.5, 0.5), (3.2, 700.0), (2000.5, 1.5), (40, 3)]


@pytest.mark.parametrize("a, b", SHAPES)
def test_beta_is_that_of_scipy(a, b):
    law = stats.beta(a, b)
    for x in [1e-6, 0.01, 0.3, 0.5, 0.77, 0.999]:
        assert beta_cdf(x, a, b) == pytest.approx(law.cdf(x), abs=1e-11)
    for p in [0.001, 0.025, 0.5, 0.975, 0.999]:
        assert beta_cdf(beta_quantile(p, a, b), a, b) == pytest.approx(p, abs=1e-10)
        assert beta_quantile(p, a, b) == pytest.approx(law.ppf(p), abs=1e-9)


@pytest.mark.parametrize("a, b", [(8, 3), (3, 8), (40, 2), (11, 1), (1, 11), (5, 5)])
def test_the_shortest_interval_holds_its_mass_and_no_other_is_shorter(a, b):
    law = stats.beta(a, b)
    low, high = beta_interval(a, b, level=0.9, kind="shortest")
    assert law.cdf(high) - law.cdf(low) == pytest.approx(0.9, abs=1e-8)
    tails = np.linspace(0, 0.1, 2001)
    assert high - low <= (law.ppf(np.minimum(tails + 0.9, 1)) - law.ppf(tails)).min() + 1e-7
    equal = beta_interval(a, b, level=0.9)
    assert high - low <= equal[1] - equal[0] + 1e-9
    if a > 1 and b > 1:
        assert law.pdf(low) == pytest.approx(law.pdf(high), rel=1e-4)


def test_the_binormal_law_is_that_of_closed_forms():
    rho = torch.tensor([-0.999, -0.9, -0.71, -0.3, 0.0, 0.5, 0.69, 0.8, 0.99, 0.99999], dtype=torch.float64)
    at_zero = binormal_cdf(torch.tensor(0.0), torch.tensor(0.0), rho)
    assert at_zero.tolist() == pytest.approx((0.25 + rho.asin() / (2 * math.pi)).tolist(), abs=1e-12)
    grid = torch.linspace(-4, 4, 17, dtype=torch.float64) + 0.013
    h, k, r = torch.meshgrid(grid, grid - 0.01, rho[:-1], indexing="ij")
    h, k, r = (v.numpy() for v in (h, k, r))
    root = np.sqrt(1 - r * r)  # Owen (1956): in terms of T
    owen = 0.5 * (stats.norm.cdf(h) + stats.norm.cdf(k)) - owens_t(h, (k - r * h) / (h * root))
    owen += -owens_t(k, (h - r * k) / (k * root)) - 0.5 * ((h * k < 0) | ((h * k == 0) & (h + k < 0)))
    found = binormal_cdf(*(torch.from_numpy(v) for v in (h, k, r))).numpy()
    assert np.abs(found - owen).max() < 1e-7
    assert np.abs(found - owen)[np.abs(r) < 0.7].max() < 1e-13


def test_delong_intervals_beside_a_bootstrap_and_their_coverage() -> None:
    def case(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        wrong = torch.arange(n) % 3 == 0
        return Rng(seed).at("case").normal((n,), dtype=torch.float64) + wrong, wrong

    number, wrong = case(0, 150)
    found = auroc(number, wrong)
    x, y = number[wrong], number[~wrong]
    i, j = (Rng(1).at(k).integers((2000, len(v)), len(v)) for k, v in (("x", x), ("y", y)))
    areas = (x[i][:, :, None] > y[j][:, None, :]).double().mean((1, 2))
    assert float(areas.std()) == pytest.approx(found.se, rel=0.1)
    pairs = math.sqrt(found.value * (1 - found.value) / (len(x) * len(y)))  # the twin: pairs taken as independent
    assert pairs < 0.5 * found.se
    truth = 0.5 * math.erfc(-0.5)  # two unit normals one apart: Phi(1 / sqrt(2))
    covers = [a.low < truth < a.high for a in (auroc(*case(seed, 60)) for seed in range(600))]
    assert abs(sum(covers) / 600 - 0.95) < 4.9 * math.sqrt(0.95 * 0.05 / 600)
    perfect = auroc(torch.arange(10.0), torch.arange(10) >= 5)
    assert perfect.value == 1 and perfect.low < 0.6 and perfect.high == 1
    with pytest.raises(MotesError, match="two wrong"):
        auroc(torch.arange(3.0), torch.tensor([True, False, False]))
