"""Adaptive multiple importance sampling: evidence against closed forms and quadrature, error bars, bounded weights."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import HalfCauchy, Normal, StudentT

import motes
from motes.core.smc import steps
from motes.density import amis
from motes.density.amis import AMIS
from motes.errors import MotesError
from motes.laws import Density

Z = 4.9  # two-sided level 1e-6
F = torch.float64


def gaussian(d: int, y: float = 2.0) -> tuple[Density, float]:
    """Prior N(0, I), likelihood N(y | x, 0.09 I), and the exact log evidence."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)

    def log_likelihood(x):
        return (-0.5 * ((x - y) / 0.3).square() + constant).sum(-1)

    truth = d * (-math.log(2 * math.pi * 1.09) / 2 - y * y / 2 / 1.09)
    return Density(log_likelihood, Normal(torch.zeros(d, dtype=F), 1.0), vectorised=True), truth


def banana() -> tuple[Density, float]:
    """Prior N(0, I) in two dimensions, likelihood N(1 | x_2 + x_1^2, 0.2^2); the evidence by quadrature."""
    grid = torch.linspace(-6, 6, 1501, dtype=F)
    x = torch.cartesian_prod(grid, grid)

    def log_likelihood(x):
        return -0.5 * ((1 - x[:, 1] - x[:, 0].square()) / 0.2).square()

    prior = Normal(torch.zeros(2, dtype=F), 1.0)
    log_p = log_likelihood(x) + prior.log_prob(x).sum(1)
    return Density(log_likelihood, prior, vectorised=True), float(log_p.logsumexp(0)) + 2 * math.log(12 / 1500)


def two(d: int = 2) -> tuple[Density, float]:
    """Prior N(0, I), likelihood 0.7 N(x | 1, 0.1^2 I) + 0.3 N(x | -1, 0.2^2 I)."""
    modes = [(0.7, 1.0, 0.1), (0.3, -1.0, 0.2)]

    def log_likelihood(x):
        one = torch.ones((), dtype=F)
        return torch.logaddexp(*[math.log(w) + Normal(m * one, s).log_prob(x).sum(-1) for w, m, s in modes])

    z = sum(w * math.exp(d * (-0.5 * math.log(2 * math.pi * (1 + s * s)) - 0.5 / (1 + s * s))) for w, _, s in modes)
    return Density(log_likelihood, Normal(torch.zeros(d, dtype=F), 1.0), vectorised=True), math.log(z)


def runs(density: Density, truth: float, n: int, seeds: int, **knobs: Any) -> tuple[np.ndarray, np.ndarray]:
    found = [motes.sample(AMIS(density, **knobs), n, seed=s, progress=False) for s in range(seeds)]
    return np.array([r.log_evidence - truth for r in found]), np.array([r.log_evidence_se for r in found])


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
@pytest.mark.parametrize(
    "problem",
    [lambda: gaussian(3), *(pytest.param(p, marks=pytest.mark.slow) for p in (banana, two))],
    ids=["gaussian", "banana", "two"],
)
def test_evidence_and_coverage_over_24_seeds(problem):
    """What it would catch: a bias of one standard error, or standard errors half of what they should be."""
    density, truth = problem()
    error, se = runs(density, truth, 500, 24)
    assert abs(np.exp(error).mean() - 1) < Z * error.std(ddof=1) / math.sqrt(24) < 0.065
    assert (np.abs(error) < 1.96 * se).sum() >= 18  # 17 of 24 or fewer come up once in 10^-4 at 95 %
    assert (np.abs(error) < 1.96 * 0.25 * se).sum() < 18


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
@pytest.mark.parametrize("problem", [banana, two])
def test_evidence_of_laws_that_are_no_gaussian(problem):
    density, truth = problem()
    error, se = runs(density, truth, 250, 3)
    assert (np.abs(error) < Z * se).all() and (se < 0.1).all()
    assert (np.abs(error) > Z * se / 20).any()  # the broken twin of an error bar


def test_rounds_that_learn_do_not_count():
    """The mean of the weights of draws to which a proposal was fitted: low by 0.1 and more in 10 dimensions."""
    density, truth = gaussian(10)
    learnt, kept = [], []
    for seed in range(8):
        last = math.nan
        for state in steps(AMIS(density), 400, seed=seed):
            if state.particles.shared["stage"] == amis.LEARNS:
                last = state.particles.log_evidence - truth
        learnt.append(last)
        kept.append(state.particles.log_evidence - truth)
    for error, right in ((np.array(learnt), False), (np.array(kept), True)):
        scale = Z * error.std(ddof=1) / math.sqrt(8)
        assert abs(error.mean()) < scale < 0.1 if right else -error.mean() > scale


def heavy(**knobs: Any) -> float:
    """How far the largest log-weight is above log L - log 0.1, for a bump on a heavy tail."""
    density = Density(
        lambda x: ((-0.5 * ((x[:, 0] - 3) / 0.5).square()).exp() + 1e-3).log(),
        StudentT(torch.full((1,), 2.0, dtype=F), 0.0, 3.0),
        vectorised=True,
    )
    worst = -math.inf
    for state in steps(AMIS(density, components=1, **knobs), 1000, seed=4):
        shared = state.particles.shared
        if shared["fits"] and "position" in shared["pool"] and len(shared["pool"]["position"]):
            above = amis._weight(shared) - shared["pool"]["log_likelihood"]
            worst = max(worst, float(above.max()) + math.log(0.1))
    return worst


def test_the_defence_bounds_the_weights():
    assert heavy() <= 1e-9
    assert heavy(freedom=math.inf, ess=20.0) <= 1e-9


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_without_the_defence_weights_are_not_bounded():
    assert heavy(freedom=math.inf, defence=0.0, ess=20.0, elite=0.9) > 0


def test_moments_and_their_errors():
    """Final draws that are one draw of the pool count as one: the spread of z-scores over 20 runs would show it."""
    density, _ = gaussian(2)
    scores = []
    for s in range(20):
        run = motes.sample(AMIS(density), 400, seed=s, progress=False)
        assert torch.equal(run.log_weight, run.log_weight[:1].expand(400))
        mean = run.mean()
        scores.append((mean.value - 2 / 1.09) / mean.se)
    z = torch.stack(scores)
    assert float(z.abs().max()) < Z and 0.6 < float(z.square().mean().sqrt()) < 1.6


def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path):
    density, _ = gaussian(3)
    whole = motes.sample(AMIS(density, modified=True), 101, seed=5, progress=False)
    motes.sample(AMIS(density, modified=True), 101, seed=5, progress=False, max_steps=2, checkpoint=tmp_path / "run")
    resumed = motes.resume(tmp_path / "run", AMIS(density, modified=True), progress=False)
    assert resumed.log_evidence == whole.log_evidence and torch.equal(resumed.view, whole.view)
    assert resumed.log_evidence_se == whole.log_evidence_se and math.isfinite(whole.log_evidence_se)


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_a_run_that_did_not_get_there_says_so():
    density, _ = gaussian(10)
    run = motes.sample(AMIS(density, most=3), 200, seed=0, progress=False)
    assert any("3 rounds from the last fit" in r for r in run.remarks)
    assert run.doubts == {"evidence", "means"} and "k-hat" in run.mean("x[0]").reason
    assert math.isnan(run.log_evidence_se) and run.mean("x[0]").se.isnan()


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_weights_whose_tail_is_too_heavy_leave_no_error_bar():
    """A target with the tails of x^-2 under a proposal of normal ones; under its own family the bars stay."""
    cauchy = Density(
        lambda x: (torch.distributions.Cauchy(0 * x, 1.0).log_prob(x) - Normal(0 * x, 1.0).log_prob(x)).sum(1),
        Normal(torch.zeros(2, dtype=F), 1.0),
    )
    run = motes.sample(AMIS(cauchy, freedom=math.inf), 200, seed=0, progress=False)
    assert any("k-hat" in r for r in run.remarks) and run.doubts == {"evidence", "means"}
    assert "k-hat" in run.standard_error.reason and "k-hat" in run.mean("x[0]").reason
    run = motes.sample(AMIS(cauchy, freedom=1.0), 200, seed=0, progress=False)
    assert run.remarks == () and math.isfinite(run.log_evidence_se)


def horseshoe() -> Density:
    """Ten means with a horseshoe below them: one scale, one for each, and standard normals; 21 dimensions."""
    y = torch.tensor([0.3, -0.8, 1.1, -0.2, 6.0, 0.5, -1.2, 0.1, -4.5, 0.9], dtype=F)
    one = torch.ones(10, dtype=F)
    prior = {"tau": HalfCauchy(one[0]), "lam": HalfCauchy(one), "z": Normal(0 * one, one)}

    def log_likelihood(p):
        return Normal(p["tau"][:, None] * p["lam"] * p["z"], 1.0).log_prob(y).sum(1)

    return Density(log_likelihood, prior, vectorised=True)


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_log_weights_that_rise_under_further_moves_leave_no_error_bar(monkeypatch):
    """Seed 1 is .44 nats below quadrature, -22.258, at a stated .09, with weights of an innocent tail."""
    run = motes.sample(AMIS(horseshoe()), 256, seed=1, progress=False)
    assert run.log_evidence < -22.6 and "further moves" in run.standard_error.reason
    look = amis.last_look
    monkeypatch.setattr(amis, "last_look", lambda *a, beside, **k: look(*a, **k))  # the broken twin
    run = motes.sample(AMIS(horseshoe()), 256, seed=1, progress=False)
    assert run.log_evidence < -22.6 and run.log_evidence_se < 0.1


def test_knobs_out_of_range_are_refused():
    density, _ = gaussian(1)
    wrong: list[dict[str, Any]] = [{"defence": 1.0}, {"elite": 0.0}, {"freedom": 0.0}, {"components": 0}, {"ess": 0.0}]
    for knobs in wrong:
        with pytest.raises(ValueError, match=next(iter(knobs))):
            AMIS(density, **knobs)
    nowhere = Density(lambda x: torch.where(x[:, 0] > 50, 0.0, -math.inf), Normal(torch.zeros(1, dtype=F), 1.0))
    with pytest.raises(MotesError):
        motes.sample(AMIS(nowhere), 50, seed=0, progress=False)
