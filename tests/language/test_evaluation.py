"""Intervals and comparisons of evaluations against closed forms, quadrature and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats as stats
import torch

import motes
from motes.core.estimate.binormal import binormal_cdf
from motes.errors import MotesError, MotesWarning, ShapeError
from motes.language import Generation, TableModel, regex
from motes.language.evaluation import (
    Counts,
    accuracy,
    accuracy_of_run,
    accuracy_of_runs,
    beta_interval,
    clustered_accuracy,
    compare,
    compare_paired,
)


def test_intervals_of_the_literature():
    found = {counts: accuracy(counts) for counts in [Counts(10, 0), Counts(0, 10), Counts(50, 50)]}
    assert (found[10, 0].low, found[10, 0].high) == pytest.approx((0.7151, 0.9977), abs=5e-5)
    assert (found[0, 10].low, found[0, 10].high) == pytest.approx((0.0023, 0.2849), abs=5e-5)
    assert (found[50, 50].low, found[50, 50].high) == pytest.approx((0.4036, 0.5964), abs=5e-5)


def covered(interval, n=10, points=2000):
    """Coverage averaged over the uniform prior, by summing over all counts."""
    theta = (np.arange(points) + 0.5) / points
    pmf = stats.binom.pmf(np.arange(n + 1)[:, None], n, theta)
    bounds = [interval(s, n - s) for s in range(n + 1)]
    inside = np.array([(theta >= low) & (theta <= high) for low, high in bounds])
    return float((pmf * inside).sum(0).mean())


def test_coverage_under_the_prior_is_exact_and_that_of_the_clt_is_not():
    """The smallest error that is noticed: 0.001 of coverage."""

    def ours(s, f):
        found = accuracy(Counts(s, f))
        return found.low, found.high

    def clt(s, f):  # the broken twin
        p, n = s / (s + f), s + f
        return p - 1.96 * math.sqrt(p * (1 - p) / n), p + 1.96 * math.sqrt(p * (1 - p) / n)

    assert covered(ours) == pytest.approx(0.95, abs=1e-3)
    assert covered(clt) < 0.88


def test_answers_count_as_their_counts():
    assert accuracy([True, True, False]) == accuracy(Counts(2, 1))
    assert accuracy(torch.tensor([1.0, 0.5, 0.0])) == accuracy(Counts(1.5, 1.5))
    with pytest.raises(MotesError, match="between 0 and 1"):
        accuracy(torch.tensor([1.0, 3.0]))
    with pytest.raises(MotesError, match="level"):
        accuracy(Counts(1, 1), level=95)
    with pytest.raises(MotesError, match="equal-tailed"):
        accuracy(Counts(1, 1), kind="hpd")


# ------------------------------------------------------------------------------------------------ two models


def test_independent_models_against_the_closed_form():
    """P(theta_A > theta_B) as a finite sum; the smallest error noticed is 0.01."""
    a, b, c, d = 10, 2, 6, 6  # Beta(a, b) and Beta(c, d)

    def log_beta(x, y):
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    terms = (log_beta(c + i, b + d) - math.log(b + i) - log_beta(1 + i, b) - log_beta(c, d) for i in range(a))
    exact = sum(map(math.exp, terms))
    found = compare(Counts(9, 1), Counts(5, 5))
    assert found.better == pytest.approx(exact, abs=4.9 * 0.5 / 256)
    assert found.difference == pytest.approx(a / (a + b) - c / (c + d), abs=1e-12)
    assert found.low < found.difference < found.high
    same = compare(Counts(7, 3), Counts(7, 3))
    assert abs(same.better - 0.5) < 4.9 * 0.5 / 256


def paired_by_quadrature(table, prior=(4, 2), points=60):
    """The same posterior summed over a grid of accuracies and correlations."""
    both, a_only, b_only, none = table
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    x, y, q = torch.meshgrid(u, u, u, indexing="ij")
    c = binormal_cdf(torch.special.ndtri(x), torch.special.ndtri(y), 2 * q - 1)
    p = [v.clamp_min(1e-300).log() for v in (c, x - c, y - c, 1 - x - y + c)]
    log_mass = both * p[0] + a_only * p[1] + b_only * p[2] + none * p[3]
    log_mass = log_mass + (prior[0] - 1) * q.log() + (prior[1] - 1) * torch.log1p(-q)
    mass = torch.softmax(log_mass.flatten(), 0).view_as(x)
    return (
        float((mass * (x - y)).sum()),
        float((mass * ((x > y) + 0.5 * (x == y))).sum()),
        float((mass * (2 * q - 1)).sum()),
    )


def answers(table):
    a = [1] * table[0] + [1] * table[1] + [0] * table[2] + [0] * table[3]
    b = [1] * table[0] + [0] * table[1] + [1] * table[2] + [0] * table[3]
    return torch.tensor(a), torch.tensor(b)


@pytest.mark.parametrize("table", [(8, 5, 1, 6), (3, 4, 4, 3), (20, 0, 0, 10), (2, 9, 6, 1)])
def test_paired_models_against_a_grid(table):
    """The smallest error noticed: 0.01 of the difference's mean and 0.03 of the probability."""
    found = compare_paired(*answers(table))
    mean, better, correlation = paired_by_quadrature(table)
    assert found.ess > 1000
    assert found.difference == pytest.approx(mean, abs=0.006)
    assert found.better == pytest.approx(better, abs=0.03)
    assert found.correlation == pytest.approx(correlation, abs=0.03)


def test_pairing_sharpens_what_independence_blurs():
    table = (40, 9, 1, 30)
    a, b = answers(table)
    paired, apart = compare_paired(a, b), compare(a, b)
    assert paired.high - paired.low < 0.8 * (apart.high - apart.low)
    assert paired.better > apart.better + 0.02
    turned = compare_paired(b, a)
    assert turned.difference == pytest.approx(-paired.difference, abs=0.01)


def test_paired_posterior_is_calibrated_under_its_prior():
    """The true difference is as often inside the central half as outside, 60 data sets."""
    generator = np.random.default_rng(4)
    inside = []
    for _ in range(60):
        x, y, rho = generator.uniform(), generator.uniform(), 2 * generator.beta(4, 2) - 1
        z = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=25) + stats.norm.ppf([x, y])
        a, b = (torch.from_numpy((z[:, j] > 0).astype(int)) for j in range(2))
        found = compare_paired(a, b, level=0.5, draws=1000)
        inside.append(found.low <= x - y <= found.high)
    assert abs(np.mean(inside) - 0.5) < 4.9 * 0.5 / math.sqrt(60)


def test_few_effective_draws_are_told():
    a, b = answers((3000, 1, 1, 3000))
    with pytest.warns(MotesWarning, match="effective draws"):
        compare_paired(a, b, draws=150)
    with pytest.raises(ShapeError, match="same questions"):
        compare_paired([True], [True, False])
    with pytest.raises(MotesError, match="right or wrong"):
        compare_paired(torch.tensor([0.5]), torch.tensor([1.0]))


# ------------------------------------------------------------------------------------------------ clusters


def test_one_answer_a_cluster_is_the_plain_posterior():
    found, plain = clustered_accuracy([1] * 7 + [0] * 3, [1] * 10), accuracy(Counts(7, 3))
    assert (found.low, found.high, found.mean) == pytest.approx((plain.low, plain.high, plain.mean), abs=2e-4)


def test_clusters_against_brute_force():
    """A direct Monte Carlo over the prior: weights are the beta-binomial likelihoods. Notices 0.01."""
    s, n = np.array([5, 4, 0, 1]), np.array([5, 6, 4, 3])
    generator = np.random.default_rng(0)
    mu, d = generator.uniform(size=400_000), generator.gamma(1, 1, 400_000)
    log_w = sum(stats.betabinom.logpmf(a, b, mu * d, (1 - mu) * d) for a, b in zip(s, n, strict=True))
    w = np.exp(log_w - log_w.max())
    found = clustered_accuracy(s, n)
    assert found.mean == pytest.approx(float(w @ mu / w.sum()), abs=0.004)
    order = np.argsort(mu)
    cdf = np.cumsum(w[order]) / w.sum()
    for p, bound in ((0.025, found.low), (0.975, found.high)):
        assert bound == pytest.approx(float(mu[order][np.searchsorted(cdf, p)]), abs=0.006)


def test_clusters_that_are_too_much_alike_for_the_prior_are_still_summed_exactly():
    """Twenty clusters with half of 100 right pull d far into the tail of its prior; a plain sum over d and mu."""
    mu, d = np.meshgrid((np.arange(400) + 0.5) / 400, np.arange(0.05, 90, 0.1), indexing="ij")
    log_mass = 20 * stats.betabinom.logpmf(50, 100, mu * d, (1 - mu) * d) - d
    mass = np.exp(log_mass - log_mass.max()).sum(1)
    cdf = np.cumsum(mass) / mass.sum()
    found = clustered_accuracy([50] * 20, [100] * 20)
    assert found.low == pytest.approx(float(mu[np.searchsorted(cdf, 0.025), 0]), abs=0.002)
    assert found.high == pytest.approx(float(mu[np.searchsorted(cdf, 0.975), 0]), abs=0.002)


def test_answers_that_agree_within_clusters_say_less():
    clustered, apart = clustered_accuracy([5, 5, 5, 0, 0, 0], [5] * 6), accuracy(Counts(15, 15))  # the broken twin
    assert clustered.high - clustered.low > 1.4 * (apart.high - apart.low)
    with pytest.raises(MotesError, match=r"clusters \[1\]"):
        clustered_accuracy([1, 3], [2, 2])
    with pytest.raises(ShapeError):
        clustered_accuracy([1, 3], [2])


# ------------------------------------------------------------------------------------------------ weights


def right(texts):
    return torch.tensor([t == "a" for t in texts])


def test_equal_weights_give_the_plain_formula_and_others_their_effective_number():
    texts = ["a", "b", "a", "a"]
    assert accuracy_of_run((texts, torch.full((4,), -3.0)), right) == accuracy(Counts(3, 1))
    w = torch.tensor([0.1, 0.6, 0.2, 0.1], dtype=torch.float64)
    found = accuracy_of_run((texts, w.log()), right)
    n = 1 / float(w.square().sum())
    assert found.estimate == pytest.approx(0.4) and found.n == pytest.approx(n)
    assert (found.low, found.high) == pytest.approx(beta_interval(1 + 0.4 * n, 1 + 0.6 * n))
    with pytest.raises(ShapeError):
        accuracy_of_run((texts, torch.zeros(3)), right)


def test_a_weighted_run_is_evaluated_under_the_law_it_targets():
    """P(a | a or bb) is 0.5 / (0.5 + 0.4 * 0.1); masking alone gives 0.5 / 0.9."""
    law = torch.tensor([0.5, 0.4, 0.1]).log().expand(4, 3)
    run = motes.sample(
        Generation(TableModel(["a", "b", "."], law), "", constraint=regex("a|bbb?"), max_tokens=4),
        2000,
        seed=0,
        progress=False,
    )
    valid = {"a": 0.5 * 0.1, "bb": 0.16 * 0.1, "bbb": 0.064 * 0.1}
    truth = valid["a"] / sum(valid.values())
    found = accuracy_of_run(run, right, level=0.999)
    assert found.low < truth < found.high and found.high - found.low < 0.15
    assert found.n <= run.ess + 1e-9


def test_runs_of_questions_are_clusters():
    runs = [(["a", "a", "b"], torch.zeros(3)), (["b", "b", "b"], torch.zeros(3)), (["a", "a", "a"], torch.zeros(3))]
    assert accuracy_of_runs(runs, right) == clustered_accuracy([2, 0, 3], [3, 3, 3])
    with pytest.raises(ShapeError, match="judges"):
        accuracy_of_runs(runs, [right])
