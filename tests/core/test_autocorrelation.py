"""How many draws correlated ones are worth, and how much their mean varies: chains of known memory."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from motes.core.estimate.autocorrelation import effective_size, relative_variance


@pytest.mark.parametrize("shape, memory", [((4, 1000), 0.9), ((2, 100), 0.5), ((1, 300), -0.4), ((4, 51), 0.0)])
def test_effective_sizes_are_those_of_arviz(shape, memory):
    base = pytest.importorskip("arviz_stats.base")
    noise = motes.Rng(3).at(str(shape)).normal(shape)
    x = torch.zeros(shape, dtype=torch.float64)
    for t in range(1, shape[1]):
        x[:, t] = memory * x[:, t - 1] + noise[:, t]
    theirs = base.array_stats.ess(x.numpy(), chain_axis=0, draw_axis=1, method="mean")
    assert effective_size(x) == pytest.approx(float(theirs), rel=1e-9)


def test_effective_sizes_at_the_edges():
    assert math.isnan(effective_size(torch.zeros(2, 3)))
    assert effective_size(torch.ones(2, 10)) == 20
    apart = torch.zeros(2, 100, dtype=torch.float64) + torch.tensor([[0.0], [1.0]])
    assert effective_size(apart + 1e-3 * motes.Rng(0).normal((2, 100))) < 5


def test_the_variance_of_a_mean_along_chains_of_known_memory():
    """x_k = r x_{k-1} + noise: the variance of a mean is (1 + r) / (1 - r) times that of independent draws."""
    m, p, r, s = 400, 60, 0.6, 0.05
    noise = motes.Rng(0).normal((m, p))
    x = [noise[:, 0]]
    for k in range(1, p):
        x.append(r * x[-1] + math.sqrt(1 - r * r) * noise[:, k])
    chains = torch.stack(x, 1)
    variance, cut = relative_variance((1 + s * chains).log())
    assert variance == pytest.approx(s**2 * (1 + r) / (1 - r) / (m * p), rel=0.08) and cut < 0.05 * variance
    variance, cut = relative_variance((1 + s * chains[:, :4]).log())
    assert cut > 0.1 * variance  # four states are too few to see the memory die out
    assert relative_variance(torch.zeros(4, 5, dtype=torch.float64)) == (0.0, 0.0)
    assert math.isnan(relative_variance(torch.full((4, 5), -math.inf, dtype=torch.float64))[0])
