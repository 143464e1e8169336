"""Stein discrepancy and thinning: the kernel by differentiation, closed forms, enumeration, a biased chain."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import motes
from motes.density.estimates.stein import (
    _precision,
    _stein,
    kernel_stein_discrepancy,
    stein_discrepancy,
    stein_thinned,
    stein_thinning,
)
from motes.errors import MotesError, ShapeError
from motes.rng import Rng

PRECISION = torch.tensor([[1.3, 0.4], [0.4, 0.7]], dtype=torch.float64)


def score(x):
    return -x + 0.3 * torch.sin(x.flip(-1))


def by_differentiation(x, y):
    """The Langevin-Stein operator applied to both arguments of the base kernel, by automatic differentiation."""

    def base(a, b):
        return (1 + (a - b) @ PRECISION @ (a - b)).rsqrt()

    cross = torch.func.jacrev(torch.func.grad(base, 0), 1)(x, y).trace()
    left, right = torch.func.grad(base, 0)(x, y), torch.func.grad(base, 1)(x, y)
    return cross + left @ score(y) + right @ score(x) + base(x, y) * (score(x) @ score(y))


def test_the_kernel_is_what_stein_s_operator_makes_of_its_base():
    x, y = Rng(0).at("x").normal((6, 2)), Rng(0).at("y").normal((5, 2))
    found = _stein(x, score(x), y, score(y), PRECISION)
    for i, j in itertools.product(range(6), range(5)):
        assert abs(float(found[i, j] - by_differentiation(x[i], y[j]))) < 1e-12
    x, far = x[:1], x[:1] + 1e-9
    assert abs(float(_stein(x, score(x), far, score(far), PRECISION)) - float(by_differentiation(x[0], x[0]))) < 1e-6


@pytest.mark.parametrize("preconditioner", ["median", "covariance"])
def test_draws_of_the_target_have_the_discrepancy_that_theory_says(preconditioner):
    """For N(0, I_3): E = (tr P + 3) / N. Draws with a mean of 0.3, or weights that lie, stand out by far."""
    d, n = 3, 200
    ratio, shifted = [], []
    for seed in range(40):
        x = Rng(seed).at("x").normal((n, d))
        expected = (float(_precision(x, preconditioner, n).trace()) + d) / n
        ratio.append(kernel_stein_discrepancy(x, -x, preconditioner=preconditioner) ** 2 / expected)
        y = x + 0.3
        shifted.append(kernel_stein_discrepancy(y, -y, preconditioner=preconditioner) ** 2 / expected)
    ratio = np.array(ratio)
    assert abs(ratio.mean() - 1) < 4.9 * ratio.std(ddof=1) / math.sqrt(40)
    assert min(shifted) > ratio.max()  # the broken twin


def test_weights_mend_draws_of_another_law():
    x = 0.4 + 1.2 * Rng(1).at("x").normal((800, 1))
    log_weight = Normal(0.0, 1.0).log_prob(x[:, 0]) - Normal(0.4, 1.2).log_prob(x[:, 0])
    assert kernel_stein_discrepancy(x, -x, log_weight=log_weight) < kernel_stein_discrepancy(x, -x) / 3
    even = torch.zeros(800, dtype=torch.float64)
    assert kernel_stein_discrepancy(x, -x, log_weight=even + 5) == pytest.approx(
        kernel_stein_discrepancy(x, -x), rel=1e-12
    )


def test_blocks_change_nothing(monkeypatch):
    x = Rng(2).at("x").normal((50, 2))
    whole = kernel_stein_discrepancy(x, score(x))
    monkeypatch.setattr("motes.density.estimates.stein.BLOCK", 175)
    assert kernel_stein_discrepancy(x, score(x)) == pytest.approx(whole, rel=1e-12)


def test_greedy_choices_are_the_best_of_all():
    """Five points, three choices: each is the argmin of the discrepancy over all five continuations."""
    x = torch.tensor([[-1.5], [-0.4], [0.2], [0.9], [3.0]], dtype=torch.float64)
    p = _precision(x, "scaled-median", 3)
    kernel = _stein(x, -x, x, -x, p)
    chosen: list[int] = []
    for _ in range(3):
        totals = [float(kernel[[*chosen, k]][:, [*chosen, k]].sum()) for k in range(5)]
        chosen.append(int(np.argmin(totals)))
    assert stein_thinning(x, -x, 3).tolist() == chosen
    assert 4 not in chosen


def test_thinning_leaves_a_burn_in_out_and_corrects_a_biased_chain():
    """A chain that comes in from 8 and then has the wrong spread 1.3: 40 chosen points are nearer to N(0, I)."""
    n = 1000
    x = 1.3 * Rng(3).at("x").normal((n, 2)) + 8 * torch.exp(-torch.arange(n).double() / 40)[:, None]
    index = stein_thinning(x, -x, 40)
    even = torch.arange(0, n, n // 40)
    assert int((x[index].abs() > 4).sum()) == 0 and int((x[even] > 4).sum()) > 0
    assert kernel_stein_discrepancy(x[index], -x[index]) < kernel_stein_discrepancy(x[even], -x[even]) / 4
    assert float(x[index].mean(0).abs().max()) < 0.1 < float(x[even].mean(0).abs().max())
    assert abs(float(x[index].square().mean()) - 1) < 0.3


def test_runs_are_judged_and_thinned_in_unconstrained_coordinates():
    prior = Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), prior, vectorised=True)
    run = motes.sample(motes.Tempering(density), 300, seed=0, progress=False)
    index = stein_thinned(run, density, 20)
    assert float((run.view[index].mean(0) - 2 / 1.09).abs().max()) < 0.05
    assert run.score is not None
    chains = motes.sample(motes.Chains(density, draws=30, keep_score=True), 32, seed=0, progress=False)
    assert chains.score is not None
    assert 0 < stein_discrepancy(chains, density) < stein_discrepancy(run, density)
    assert stein_thinned(chains, density, 5).max() < 960
    with pytest.raises(MotesError, match="gradient of the target"):
        stein_discrepancy(
            motes.sample(motes.Tempering(density, kernel="random-walk"), 20, seed=0, progress=False), density
        )


def test_what_cannot_be_is_refused():
    x = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ShapeError, match="both be"):
        kernel_stein_discrepancy(x, x[:, :1])
    with pytest.raises(ShapeError, match="one log-weight a point"):
        kernel_stein_discrepancy(x, x, log_weight=torch.zeros(3, dtype=torch.float64))
    with pytest.raises(MotesError, match="do not fill"):
        kernel_stein_discrepancy(x, x, preconditioner="covariance")
    with pytest.raises(ValueError, match="scaled-median"):
        stein_thinning(x, x, 2, preconditioner="mean")  # type: ignore[arg-type]
    with pytest.raises(MotesError, match=r"particle \[1\]"):
        stein_thinning(x, x.index_fill(0, torch.tensor([1]), math.nan), 2)
    with pytest.raises(ValueError, match="at least 1"):
        stein_thinning(x, x, 0)
