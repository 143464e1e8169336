"""Second opinions on the evidence: bridge and path sampling against conjugate models, with their error bars."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Normal

import motes
from motes.core.remark import ALL, Remark
from motes.density.estimates.bridge import bridge_sampling
from motes.density.estimates.global_sensitivity import sensitivity
from motes.density.estimates.path_sampling import path_sampling
from motes.errors import MotesError

Z = 4.9


def gaussian(d):
    """Prior N(0, I), likelihood N(2 | x, 0.09 I)."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)
    prior = Normal(torch.zeros(d, dtype=torch.float64), 1.0)
    density = motes.Density(lambda x: (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1), prior, vectorised=True)
    return density, d * (-math.log(2 * math.pi * 1.09) / 2 - 2 / 1.09)


def coin():
    """Two heads in eight throws under a flat prior: a skewed posterior with evidence B(3, 7)."""
    heads = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1.0], dtype=torch.float64)
    prior = {"p": Beta(torch.ones((), dtype=torch.float64), 1.0)}

    def log_likelihood(q):
        p = q["p"][:, None]
        return (heads * p.log() + (1 - heads) * (-p).log1p()).sum(-1)

    density = motes.Density(log_likelihood, prior, vectorised=True)
    return density, math.lgamma(3) + math.lgamma(7) - math.lgamma(10)


def judge(found, truth, least):
    """No bias beyond that of a logarithm, and bars that cover.

    What 40 runs would show: a bias of 0.8 standard errors, or coverage below `least`.
    """
    value = np.array([float(e) for e in found]) - truth
    se = np.array([float(e.se) for e in found])
    assert abs(value.mean()) < Z * value.std(ddof=1) / math.sqrt(len(value)) + value.var()
    covered = (np.abs(value) < 1.96 * se).mean()
    assert covered > least, (covered, value.std(), se.mean())
    return value, se


PROBLEMS = {"gaussian": gaussian(3), "coin": coin()}


@cache
def runs_of(problem: str) -> list[motes.Run]:
    return [motes.sample(motes.Tempering(PROBLEMS[problem][0]), 128, seed=s, progress=False) for s in range(40)]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_bridge_sampling_from_weighted_particles(problem, symmetric):
    (density, truth), runs = PROBLEMS[problem], runs_of(problem)
    value, se = judge([bridge_sampling(r, density, symmetric=symmetric, seed=7) for r in runs], truth, 0.75)
    weights = np.array([r.log_evidence for r in runs]) - truth
    assert value.std() < weights.std()  # the broken twin of an error bar: 0.5 times it covers too little
    assert (np.abs(value) < 0.5 * se).mean() < 0.7


@pytest.mark.parametrize(("chains", "draws", "seeds"), [(16, 40, 20), (1, 800, 8)])
def test_bridge_sampling_from_chains(chains, draws, seeds):
    density, truth = coin()
    model = motes.Chains(density, kernel="random-walk", draws=draws, warmup=100)
    runs = [motes.sample(model, chains, seed=s, progress=False) for s in range(seeds)]
    judge([bridge_sampling(r, density, seed=s) for s, r in enumerate(runs)], truth, 0.6)


def test_the_reflected_bridge_is_better_for_a_skewed_posterior():
    density, truth = PROBLEMS["coin"]
    error = {
        s: np.array([float(bridge_sampling(r, density, symmetric=s, seed=3)) for r in runs_of("coin")]) - truth
        for s in (False, True)
    }
    assert error[True].var() < 0.8 * error[False].var()


def test_a_gaussian_fitted_to_a_gaussian_leaves_nothing():
    """With exact draws the integrand is nearly constant."""
    density, truth = gaussian(2)
    run = motes.sample(motes.Tempering(density), 4000, seed=0, progress=False)
    found = bridge_sampling(run, density)
    assert float(found.se) < 0.002 and abs(float(found) - truth) < Z * float(found.se)


def test_draws_of_another_posterior_are_seen():
    """The broken twin: draws of a posterior four times as wide bridge to another number or a much wider bar."""
    density, truth = gaussian(2)
    prior = Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    other = motes.Density(lambda x: -0.5 * ((x - 1) / 0.6).square().sum(-1), prior, vectorised=True)
    run = motes.sample(motes.Tempering(other), 1000, seed=0, progress=False)
    found = bridge_sampling(run, density)
    assert abs(float(found) - truth) > 0.3


def test_bridge_sampling_refuses():
    density, _ = gaussian(2)
    run = motes.sample(motes.Tempering(density), 4, seed=0, progress=False)
    lone = dataclasses.replace(
        run, particles=dataclasses.replace(run.particles, log_weight=torch.tensor([0.0, *[-math.inf] * 3]).double())
    )
    with pytest.raises(MotesError, match="two draws in each half"):
        bridge_sampling(lone, density)
    with pytest.raises(MotesError):
        bridge_sampling(run, gaussian(3)[0])


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_an_evidence_without_an_error_bar_says_why():
    density, _ = gaussian(2)
    run = motes.sample(motes.Chains(density, kernel="random-walk", draws=30, warmup=20), 2, seed=0, progress=False)
    found = bridge_sampling(run, density)
    assert math.isnan(
        float(found.se)
    ) and "± ?, no error bar: of the draws in one half there is none (1 chain of 30 draws: too few" in repr(found)


def test_path_sampling_agrees_with_the_truth_and_covers():
    truth, runs = PROBLEMS["gaussian"][1], runs_of("gaussian")
    judge([path_sampling(r) for r in runs], truth, 0.75)
    plain = np.array([float(path_sampling(r, correct=False)) for r in runs]) - truth
    sharp = np.array([float(path_sampling(r)) for r in runs]) - truth
    assert plain.mean() < -0.03 and abs(sharp.mean()) < 0.03  # the trapezoid alone is 0.07 too low


def test_path_sampling_is_exact_on_an_exact_ladder():
    """With closed-form moments in the trace only the error of the rule remains: fourth order in the spacing."""
    density, truth = gaussian(1)
    run = motes.sample(motes.Tempering(density), 64, seed=0, progress=False)
    found = []
    for rungs in (16, 32):
        at = (np.arange(rungs + 1) / rungs) ** 3
        spread = 1 / (1 + at / 0.09)
        centre = spread * at * 2 / 0.09
        mean = -0.5 * math.log(2 * math.pi * 0.09) - ((centre - 2) ** 2 + spread) / 0.18
        variance = (2 * spread**2 + 4 * spread * (centre - 2) ** 2) / 0.18**2
        raised = [*at[1:], 1.0]
        rows = [
            {"temperature": t, "log_likelihood_mean": m, "log_likelihood_variance": v}
            for t, m, v in zip(raised, mean, variance, strict=True)
        ]
        exact = dataclasses.replace(run, trace=type(run.trace)(rows))
        found.append((float(path_sampling(exact)) - truth, float(path_sampling(exact, correct=False)) - truth))
    (first, plain), (second, _) = found
    assert abs(second) < abs(first) / 8 and abs(first) < abs(plain) / 5 and abs(second) < 2e-3


def test_path_sampling_refuses():
    density, _ = gaussian(1)
    with pytest.raises(MotesError, match="needs the trace"):
        path_sampling(motes.sample(motes.Chains(density, draws=10, warmup=10), 40, seed=0, progress=False))
    with pytest.raises(MotesError, match="resume"):
        path_sampling(motes.sample(motes.Tempering(density), 32, seed=0, progress=False, max_steps=2))
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    cut = motes.Density(lambda x: torch.where(x[:, 0] > 0, 0.0, -math.inf) - x[:, 0].square(), prior, vectorised=True)
    with pytest.raises(MotesError, match="no finite mean and variance"):
        path_sampling(motes.sample(motes.Tempering(cut), 200, seed=0, progress=False))


def test_a_run_that_withholds_its_bars_lends_none():
    """Neither to a second opinion on its evidence nor to indices of what its draws depend on."""
    density, _ = gaussian(2)
    run = motes.sample(motes.Tempering(density), 256, seed=0, progress=False)
    stuck = dataclasses.replace(run, remarks=[Remark("the sampler is stuck", ALL, withholds=True)])
    for of in (
        lambda r: bridge_sampling(r, density),
        path_sampling,
        lambda r: sensitivity(r, lambda x: x[:, 0] + x[:, 1], dependent=True).first,
        lambda r: sensitivity(r, lambda x: x[:, 0] + x[:, 1], dependent=True).total,
        lambda r: r.weighted_sample.mean(r.values(lambda x: x[:, 0])),
        lambda r: r.mean(lambda x: x[:, 0], smooth=True),
    ):
        assert bool(torch.as_tensor(of(run).se > 0).all()) and not of(run).reason
        assert bool(torch.as_tensor(of(stuck).se).isnan().all()) and of(stuck).reason == "the sampler is stuck"
        assert torch.equal(of(stuck).value, of(run).value)


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_path_sampling_leaves_walls_to_the_weights(monkeypatch):
    """Half of the prior is behind a wall: log Z = -log 2 - .5 log 2, and the rule integrates the wall."""
    normal = Normal(torch.zeros(1, dtype=torch.float64), 1.0)

    def walled(height: float) -> motes.Run:
        def log_likelihood(x):
            return torch.where(x[:, 0] > 0, -0.5 * x[:, 0].square(), height)

        density = motes.Density(log_likelihood, normal, vectorised=True)
        return motes.sample(motes.Tempering(density), 512, seed=0, progress=False)

    run = walled(-1e10)
    assert abs(run.log_evidence + 1.5 * math.log(2)) < 5 * run.log_evidence_se < 1
    found = path_sampling(run)
    assert abs(float(found) + 1.5 * math.log(2)) > 1e3 and found.se.isnan() and "too far apart" in found.reason
    monkeypatch.setattr("motes.density.estimates.path_sampling.APART", math.inf)
    assert 0 < float(path_sampling(run).se) < 1
    with pytest.raises(MotesError, match="no finite mean and variance"):
        path_sampling(walled(-1e300))
