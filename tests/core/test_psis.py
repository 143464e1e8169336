"""Pareto-smoothed weights: ArviZ's numbers on our scale, k-hat of known tails, and means that say when not to trust."""

import math
import sys

import numpy as np
import pytest
import torch
from arviz_stats.base.array import array_stats

import motes
from motes.core.estimate.psis import smooth
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.errors import MotesError


class Scaled(FeynmanKac):
    """Exponential draws with rate 1 for the target with rate `rate`; weights have k = 1 - rate."""

    def __init__(self, rate):
        self.rate = rate

    def init(self, rng, n):
        x = rng.at("x").exponential((n,))
        return Particles.start(x, math.log(self.rate) + (1 - self.rate) * x)

    def step(self, rng, particles):
        raise AssertionError

    def done(self, particles):
        return True


def run(rate, n, seed):
    return motes.sample(Scaled(rate), n, seed=seed, progress=False)


@pytest.mark.parametrize(("rate", "k"), [(0.7, 0.3), (0.5, 0.5), (0.2, 0.8), (1.5, -2.0)])
def test_k_hat_is_the_index_of_the_tail(rate, k):
    """exp((1 - r) x) under an exponential law of rate 1 is a Pareto variable with k = 1 - r; below 0 it is bounded."""
    found = np.array([run(rate, 4000, s).psis().k_hat for s in range(20)])
    if k < 0:
        assert (found < 0.1).all()
    else:  # the prior of the fit, worth ten draws at 0.5, pulls by 10 / (10 + 190) of the distance
        expected = k + (0.5 - k) * 10 / 200
        assert abs(found.mean() - expected) < 4.9 * found.std(ddof=1) / math.sqrt(20) + 0.02, (found.mean(), expected)
        assert abs(found.mean() - (1 - k)) > 0.1 or rate == 0.5  # the broken twin: the other tail


def test_smoothing_is_arviz_s_up_to_the_scale():
    raw = run(0.4, 500, 3).log_weight
    raw[17] = -math.inf
    ours = smooth(raw)
    theirs, k = array_stats.psislw(-raw[raw > -math.inf].numpy())
    kept = ours.log_weight[raw > -math.inf]
    assert ours.k_hat == float(k) and float(ours.log_weight[17]) == -math.inf
    assert np.allclose(torch.log_softmax(kept, 0).numpy(), theirs, atol=1e-12)
    body = raw.argsort()[:400]
    assert torch.allclose(ours.log_weight[body], raw[body], atol=1e-12)
    assert float(ours.log_weight.max()) <= float(raw.max()) + 1e-12


def test_smoothed_means_vary_less_and_are_refused_an_error_bar_when_hopeless():
    """Mean 1/r of the target with rate r; at k = 0.6 the smoothed mean has the smaller squared error."""
    rate = 0.4
    runs = [run(rate, 300, s) for s in range(200)]
    plain = np.array([float(r.mean().value) for r in runs]) - 1 / rate
    both = [r.mean(smooth=True) for r in runs]
    smoothed = np.array([float(e.value) for e in both]) - 1 / rate
    assert (smoothed**2).mean() < (plain**2).mean()
    assert abs(smoothed.mean()) < 0.25 / rate
    hopeless = run(0.05, 300, 0)
    assert math.isnan(float(hopeless.mean(smooth=True).se)) and "k-hat" in hopeless.mean(smooth=True).reason
    assert not hopeless.psis().reliable
    good = run(0.8, 300, 0)
    assert good.psis().reliable and float(good.mean(smooth=True).se) > 0


def test_edges():
    flat = smooth(torch.zeros(100, dtype=torch.float64))
    assert flat.k_hat == -math.inf and flat.reliable and not flat.log_weight.any()
    few = smooth(torch.arange(10.0, dtype=torch.float64))
    assert math.isnan(few.k_hat) and not few.reliable and "too few" in few.advice
    with pytest.raises(MotesError, match="all 30 weights are zero"):
        smooth(torch.full((30,), -math.inf, dtype=torch.float64))
    heavy = smooth((torch.arange(1, 1001, dtype=torch.float64) / 1001).reciprocal().log() * 2)
    assert heavy.k_hat > 1 and "no number of draws" in heavy.advice


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("top", [1, 3, 15])
@pytest.mark.parametrize("by", [5.0, 50.0, 2000.0])
def test_weights_of_which_few_count_are_not_called_reliable(top, by):
    """ArviZ's fit is then of zeros: its weights are NaN and its k-hat that of its prior, 1/6."""
    for body in (torch.zeros(100, dtype=torch.float64), motes.Rng(0).normal((100,))):
        raw = body.clone()
        raw[:top] += by
        found = smooth(raw)
        assert not found.log_weight.isnan().any()
        assert not found.reliable or (by == 5.0 and found.k_hat > -math.inf)
        if math.isnan(found.k_hat):
            assert torch.equal(found.log_weight, raw) and "cannot be" in found.advice


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    with pytest.raises(ImportError, match=r"motes\[arviz\]"):
        smooth(torch.zeros(30, dtype=torch.float64))
