"""The last look at finished particles: laws that are narrow in places, heavy tails, healthy runs, stuck particles."""

from __future__ import annotations

import math
import warnings
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Gamma, HalfCauchy, Normal

import motes
from motes.density import (
    AMIS,
    AnnealedImportanceSampling,
    Chains,
    NestedSampling,
    ParallelTempering,
    PersistentSampling,
    WasteFree,
    amis,
    last_look,
)
from motes.density.annealing import ais, annealed, persistent, tempering
from motes.density.last_look import LastLook
from motes.density.markov import draws_look
from motes.density.nested import nested
from motes.errors import MotesWarning
from motes.kernels import RandomWalk

REAL = torch.float64
WIDE = torch.tensor(3.0, dtype=REAL)


def normal(x: Tensor, mean: Tensor | float, scale: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def funnel(x: Tensor) -> Tensor:
    """Neal's funnel over its start: the log evidence is 0, E v = 0 and P(v < -3) = .159."""
    v = x[:, 0]
    return normal(v, 0.0, WIDE) + normal(x[:, 1:], 0.0, torch.exp(v / 2)[:, None]).sum(1) - normal(x, 0.0, WIDE).sum(1)


def gaussian(x: Tensor) -> Tensor:
    return -0.5 * ((x - 2) / 0.3).square().sum(1)


def student(x: Tensor) -> Tensor:
    """Student's t with 3 degrees of freedom in 10 dimensions over a standard normal law: the log evidence is 0."""
    constant = math.lgamma(6.5) - math.lgamma(1.5) - 5 * math.log(3 * math.pi)
    return constant - 6.5 * torch.log1p(x.square().sum(1) / 3) - normal(x, 0.0, torch.tensor(1.0, dtype=REAL)).sum(1)


def density(log_likelihood, d: int, scale: float = 3.0) -> motes.Density:
    return motes.Density(log_likelihood, Normal(torch.zeros(d, dtype=REAL), scale), vectorised=True)


def quiet(model, n: int, seed: int, **more) -> motes.Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MotesWarning)
        return motes.sample(model, n, seed=seed, progress=False, **more)


def blind(monkeypatch) -> None:
    """The broken twin: a look that sees nothing."""
    for module in (annealed, amis):
        monkeypatch.setattr(module, "last_look", lambda rng, look, *_, **__: type(look)())


def neck(x: Tensor) -> Tensor:
    return (x[:, 0] < -3).to(REAL)


@pytest.mark.parametrize("sampler", [WasteFree, PersistentSampling])
def test_a_funnel_whose_neck_was_not_entered_has_no_error_bars(sampler, monkeypatch):
    monkeypatch.setattr(persistent, "find_dependence", lambda *_: None)  # else it is entered
    model = sampler(density(funnel, 4))
    run = quiet(model, 256, 0)
    assert {"evidence", "means"} <= run.doubts and math.isnan(run.log_evidence_se)
    assert math.isnan(float(run.mean(neck).se)) and float(run.mean(neck)) < 0.08
    blind(monkeypatch)
    again = quiet(model, 256, 0)
    assert not again.remarks and torch.equal(again.log_weight, run.log_weight)


def test_sweeps_end_where_no_mean_begins_to_drift(monkeypatch):
    """A hint that is none costs a round of sweeps, and not hundreds of them."""
    monkeypatch.setattr(last_look, "scales_depend", lambda *_: True)
    model = WasteFree(density(gaussian, 5))
    assert all(quiet(model, 256, seed).particles.shared["look"]["evaluations"] < 60 * 256 for seed in range(4))
    monkeypatch.setattr(last_look, "IDLE", 0.0)
    monkeypatch.setattr(last_look, "HINT", 0.0)
    assert quiet(model, 256, 0).particles.shared["look"]["evaluations"] > 100 * 256


@pytest.mark.parametrize(
    ("sampler", "seed"), [(partial(WasteFree, sweeps=1), 1), (partial(PersistentSampling, max_correlation=0.5), 3)]
)
def test_a_tail_that_weights_cannot_reach_has_no_error_bars(sampler, seed, monkeypatch):
    model = sampler(density(student, 10, 1.0))
    run = quiet(model, 256, seed)
    assert math.isnan(run.log_evidence_se) and any("log-likelihoods lie far apart" in r for r in run.remarks)
    blind(monkeypatch)
    monkeypatch.setattr(LastLook, "remarks", lambda look: [])
    again = quiet(model, 256, seed)
    far = again.mean(lambda x: (x.square().mean(1) > 5).to(REAL))  # with probability .106
    assert abs(float(far) - 0.106) > 2.7 * float(far.se)


def schools() -> motes.Density:
    """Rubin's eight schools, centred, the prior N(0, 10) of the effects divided out: E tau = 3.60."""
    y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=REAL)
    sigma = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=REAL)

    def log_likelihood(p):
        theta = p["theta"]
        prior = normal(theta, p["mu"][:, None], p["tau"][:, None]) - normal(theta, 0.0, 10 * torch.ones((), dtype=REAL))
        return (normal(y, theta, sigma) + prior).sum(1)

    zero, five = (torch.tensor(v, dtype=REAL) for v in (0.0, 5.0))
    prior = {"mu": Normal(zero, five), "tau": HalfCauchy(five), "theta": Normal(zero.expand(8), 2 * five)}
    return motes.Density(log_likelihood, prior, vectorised=True)


def test_short_runs_are_looked_at_where_their_chains_remember(monkeypatch):
    """Two sweeps at each of few temperatures cost less than the shortest look."""
    model, seeds = WasteFree(schools(), sweeps=1), (1, 10)

    def silent(seed: int) -> bool:
        tau = quiet(model, 256, seed).mean("tau")
        return bool(abs(float(tau.value) - 3.598) > 6 * float(tau.se))

    assert not any(silent(seed) for seed in seeds)
    monkeypatch.setattr(WasteFree, "_memory", lambda *_: 0.0)
    assert any(silent(seed) for seed in seeds)


def precisions() -> motes.Density:
    """Eight means of one measurement each below an unknown precision, Gamma(1/2, 1/20): log Z = -15.836, E lam = 11.2
    by quadrature over the precision, which most particles never see large."""
    y = torch.tensor([2.01, 3.59, 3.23, 2.52, 3.5, 0.58, 1.6, 0.66], dtype=REAL)
    one = torch.ones((), dtype=REAL)

    def log_likelihood(p):
        theta, scale = p["theta"], p["lam"].clamp(min=1e-300).rsqrt()[:, None]
        return (normal(theta, p["mu"][:, None], scale) - normal(theta, 0.0, 10 * one) + normal(y, theta, one)).sum(1)

    prior = {
        "mu": Normal(0 * one, 10 * one),
        "lam": Gamma(one / 2, one / 20),
        "theta": Normal(torch.zeros(8).double(), 10.0),
    }
    return motes.Density(log_likelihood, prior, vectorised=True)


def test_chains_that_remember_are_moved_on_however_long_the_run(monkeypatch):
    """Runs that can afford a few sweeps, which find nothing: a round of many does, and the next one surely."""
    model = WasteFree(precisions(), sweeps=1)
    assert all({"evidence", "means"} <= quiet(model, 256, seed).doubts for seed in (1, 7))
    monkeypatch.setattr(last_look, "RECALL", 1.0)
    run = quiet(model, 256, 7)
    mean = run.mean("lam")
    assert not run.doubts and abs(float(mean.value) - 11.18) > 10 * float(mean.se)


@pytest.mark.parametrize(("sampler", "most"), [(WasteFree, 1.4), (PersistentSampling, 1.1)])
def test_healthy_runs_keep_their_bits_and_pay_little(sampler, most, monkeypatch):
    """WasteFree's cost 14 evaluations a particle, and chains that remember by chance are moved on."""
    model = sampler(density(gaussian, 5))
    seen = [quiet(model, 256, seed) for seed in range(8)]
    cost = [float(run.trace["evaluations"].sum()) for run in seen]
    assert not any(run.remarks for run in seen)
    blind(monkeypatch)
    unseen = [quiet(model, 256, seed) for seed in range(8)]
    assert all(torch.equal(a.log_weight, b.log_weight) for a, b in zip(seen, unseen, strict=True))
    assert sum(cost) < most * sum(float(run.trace["evaluations"].sum()) for run in unseen)


def test_independent_weights_with_a_heavy_tail_have_no_error_bars(monkeypatch):
    model = AnnealedImportanceSampling(density(student, 10, 1.0), temperatures=(0.5, 1.0))
    run = quiet(model, 256, 0)
    assert math.isnan(run.log_evidence_se) and bool(run.mean().se.isnan().all())
    blind(monkeypatch)
    monkeypatch.setattr(ais, "HEAVY", math.inf)
    again = quiet(model, 256, 0)
    assert again.log_evidence_se > 0 and bool((again.mean().se > 0).any())


def test_independent_weights_add_up_their_tails(monkeypatch):
    """A path of many small steps has light weights at each, and a particle that stays far out meets all of them."""
    model = AnnealedImportanceSampling(density(student, 10, 1.0))
    assert all(math.isnan(quiet(model, 256, seed).log_evidence_se) for seed in range(3))
    monkeypatch.setattr(ais, "sum", max, raising=False)  # what the largest step alone would say
    assert quiet(model, 256, 0).log_evidence_se > 0
    easy = AnnealedImportanceSampling(density(gaussian, 5))
    assert all(quiet(easy, 256, seed).log_evidence_se > 0 for seed in range(3))


def test_a_mixture_that_did_not_enter_the_neck_has_no_error_bars(monkeypatch):
    model = AMIS(density(funnel, 4))

    def missed(seed: int) -> bool:
        run = quiet(model, 256, seed)
        mean = run.mean(neck)
        return not run.doubts and abs(float(mean) - 0.158655) > 4 * float(mean.se)

    assert not any(map(missed, range(8)))
    blind(monkeypatch)
    assert any(map(missed, range(8)))


def test_a_likelihood_that_chose_nothing_has_no_error_bar(monkeypatch):
    """3 nats where x > 2.6, which a normal draw is with probability .0047: log Z = .085 and not 0."""
    normal = Normal(torch.zeros(1, dtype=REAL), 1.0)
    model = motes.Tempering(motes.Density(lambda x: 3.0 * (x[:, 0] > 2.6), normal, vectorised=True))
    runs = [quiet(model, 64, seed) for seed in range(5)]
    unmet = [run for run in runs if run.log_evidence == 0]
    assert unmet and all(math.isnan(run.log_evidence_se) and math.isnan(float(run.mean().se)) for run in unmet)
    assert "the log-likelihood was 0 for each of the 64 particles" in unmet[0].remarks[0]
    monkeypatch.setattr(tempering, "unearned", lambda *_: None)
    assert quiet(model, 64, unmet[0].seed).log_evidence_se == 0.0


def test_one_survivor_says_nothing_of_how_many_there_should_be(monkeypatch):
    def thin(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 6.0, 0.0, -math.inf)  # with probability .023

    model = NestedSampling(density(thin, 2))
    run = quiet(model, 64, 0)
    assert run.particles.shared["fewest"] < 5 and math.isnan(run.log_evidence_se)
    assert "live points lay above" in run.standard_error.reason
    monkeypatch.setattr(nested, "FEWEST", 0)
    assert "live points lay above" not in quiet(model, 64, 0).standard_error.reason


def test_weights_of_enormous_size_have_no_digits_left(monkeypatch):
    wall = density(lambda x: torch.where(x[:, 0] > 30.0, 0.0, torch.tensor(-1e300, dtype=REAL)), 2)
    run = quiet(AMIS(wall), 64, 0)
    assert math.isnan(run.log_evidence_se) and "no digits left" in run.standard_error.reason
    assert bool(run.mean().se.isnan().all())
    monkeypatch.setattr("motes.core.run.DIGITLESS", math.inf)
    assert quiet(AMIS(wall), 64, 0).log_evidence_se < 1.0


class Stuck(RandomWalk):
    """A random walk that proposes steps of next to no length."""

    def start(self, d, dtype):
        return {**super().start(d, dtype), "step_size": 1e-7}

    def learn(self, parameters, sweep, weight):
        return parameters


def test_particles_that_cannot_move_are_found_out(monkeypatch):
    monkeypatch.setattr(persistent, "HEAVY", math.inf)
    run = quiet(PersistentSampling(density(gaussian, 5), kernel=Stuck(), sweeps=16), 512, 0)
    assert {"evidence", "means"} <= run.doubts and any("not settled" in remark for remark in run.remarks)


def test_a_run_is_resumed_with_what_it_has_noted(tmp_path):
    model, path = WasteFree(density(funnel, 4)), tmp_path / "run"
    whole = quiet(model, 256, 0)
    quiet(model, 256, 0, max_steps=2, checkpoint=path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MotesWarning)
        again = motes.resume(path, model, progress=False)
    assert again.particles.shared["look"] == whole.particles.shared["look"] and list(again.remarks) == list(
        whole.remarks
    )


def test_walkers_that_agree_and_never_entered_the_neck_have_no_error_bars(monkeypatch):
    """P(tau < 1) is .200."""
    model = ParallelTempering(schools(), draws=200, rounds=4)
    run = quiet(model, 16, 0)
    small = run.mean(lambda v: (v["tau"] < 1).to(REAL))
    assert "means" in run.doubts and math.isnan(float(small.se)) and float(small) < 0.13
    monkeypatch.setattr(draws_look, "last_look", lambda rng, look, *_, **__: type(look)())
    small = quiet(model, 16, 0).mean(lambda v: (v["tau"] < 1).to(REAL))
    assert float(small) + 3 * float(small.se) < 0.2  # the broken twin: a bar that says otherwise


def test_chains_in_the_wide_part_of_a_funnel_have_no_error_bars(monkeypatch):
    model = Chains(density(funnel, 4), kernel="hmc", draws=400, warmup=100)
    run = quiet(model, 16, 0)
    assert float(run.mean(neck)) < 0.1 and math.isnan(float(run.mean(lambda x: x[:, 0]).se))
    monkeypatch.setattr(draws_look, "last_look", lambda rng, look, *_, **__: type(look)())
    assert float(quiet(model, 16, 0).mean(lambda x: x[:, 0]).se) > 0


@pytest.mark.parametrize("n", [4, 16])
def test_healthy_chains_are_looked_at_and_keep_their_bars(n):
    for model in (
        ParallelTempering(density(gaussian, 2), draws=200, rounds=4),
        Chains(density(gaussian, 2), draws=400),
    ):
        run = quiet(model, n, 1)
        assert not run.doubts and run.particles.shared["look"]["evaluations"] > 0 and bool((run.mean().se > 0).all())
