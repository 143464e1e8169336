"""Delayed acceptance: the law does not depend on the emulator, and a good one saves evaluations."""

import math

import pytest
import torch
from torch.distributions import Normal

import motes
from motes.density.nested.nested import Inside, NestedSampling
from motes.kernels import RandomWalk, delayed, move
from motes.kernels.adaptation.emulator import fit_emulator, predict
from motes.kernels.delayed import DelayedAcceptance
from motes.laws import Density
from motes.laws.tempered import Tempered
from motes.rng import Rng

N, Z, F = 8_000, 4.9, torch.float64  # two-sided level 1e-6


def half_moon() -> Density:
    """Prior N(0, I); the likelihood only cuts: x_1 > 0.3 with a log-likelihood that is x_1 there."""
    return Density(lambda x: x[:, 0], Normal(torch.zeros(2, dtype=F), 1.0), vectorised=True)


def exact(n: int) -> torch.Tensor:
    """Draws of N(0, I) given x_1 > 0.3."""
    tail = 0.5 * math.erfc(0.3 / math.sqrt(2))
    first = -torch.special.ndtri(tail * Rng(7).at("tail").uniform((n, 1)))
    return torch.cat([first, Rng(7).at("other").normal((n, 1))], 1)


def worst(emulator: dict[str, torch.Tensor]) -> float:
    """The largest z-score after three sweeps from exact draws; a bias of 0.055 standard deviations would be seen."""
    kernel, target = DelayedAcceptance(), Inside(half_moon(), 0.3)
    state = target.evaluate(exact(N), False)
    parameters = {**kernel.start(2, F), "emulator": emulator, "steps": 4, "step_size": 0.8}
    even = torch.full((N,), 1 / N, dtype=F)
    moved = move(kernel, Rng(2), target, state, even, parameters, sweeps=3, adapt=False)
    x = moved.state["position"]
    assert 0.05 < moved.info["acceptance"] < 0.95 and not torch.equal(x, state["position"])
    fresh = target.evaluate(x, False)
    assert all(torch.allclose(fresh[k], v) for k, v in moved.state.items())
    tail = 0.5 * math.erfc(0.3 / math.sqrt(2))
    mean = math.exp(-0.045) / math.sqrt(2 * math.pi) / tail
    truths = [(x[:, 0], mean), (x[:, 0].square(), 1 + 0.3 * mean), (x[:, 1], 0.0), (x[:, 1].square(), 1.0)]
    truths += [(x[:, 0] * x[:, 1], 0.0), ((x[:, 0] < 0.5).double(), 1 - 0.5 * math.erfc(0.5 / math.sqrt(2)) / tail)]
    return max(abs(float(f.mean() - t)) / float(f.std() / math.sqrt(N)) for f, t in truths)


def good() -> dict[str, torch.Tensor]:
    x = exact(400)
    state = half_moon().evaluate(x)
    return fit_emulator(x, torch.stack([state["log_prior"], state["log_likelihood"]], 1))


def bad() -> dict[str, torch.Tensor]:
    """Fitted to something else."""
    x = exact(400)
    return fit_emulator(x, torch.stack([2 * x[:, 1] - x[:, 0], (2 * x[:, 1]).sin() + 0.3], 1))


@pytest.mark.parametrize("make", [good, bad])
def test_the_law_is_that_of_the_target_whatever_the_emulator(make):
    assert worst(make()) < Z


def test_without_the_second_decision_it_is_not(monkeypatch):
    right = delayed.accepted

    def lenient(rng, log_ratio):
        if not rng.purpose.endswith("target"):
            return right(rng, log_ratio)
        return right(rng, torch.where(log_ratio > -math.inf, 0.0, log_ratio))

    monkeypatch.setattr(delayed, "accepted", lenient)
    assert worst(bad()) > Z


def test_a_tempered_law_with_adaptation():
    """Prior N(0, 1), likelihood N(1 | x, 1): the mean of the posterior is 1/2; 4000 particles."""
    density = Density(lambda x: -0.5 * (x - 1).square().sum(-1), Normal(torch.zeros(3, dtype=F), 1.0), vectorised=True)
    target, kernel = Tempered(density, 1.0), DelayedAcceptance()
    z = 0.5 + Rng(0).normal((4000, 3)) * math.sqrt(0.5)
    state, even = target.evaluate(z, False), torch.full((4000,), 1 / 4000, dtype=F)
    parameters = kernel.fit(kernel.start(3, F), target, state, even)
    moved = move(kernel, Rng(1), target, state, even, parameters, sweeps=6)
    x = moved.state["position"]
    assert moved.info["acceptance"] > 0.9 and moved.info["correlation"] < 0.2  # the emulator is exact
    assert ((x.mean(0) - 0.5).abs() < Z * x.std(0) / math.sqrt(4000)).all()
    assert ((x.var(0) - 0.5).abs() < Z * 0.5 * math.sqrt(2 / 4000)).all()


def test_a_good_emulator_saves_evaluations():
    density = Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), Normal(torch.zeros(3, dtype=F), 1.0))
    truth = 3 * (0.5 * math.log(0.09 / 1.09) - 2 / 1.09)
    spent = {}
    for kernel in (RandomWalk(), DelayedAcceptance()):
        run = motes.sample(NestedSampling(density, kernel=kernel), 200, seed=0, progress=False)
        assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 2
        spent[type(kernel)] = float(run.trace["evaluations"].sum())
    assert spent[DelayedAcceptance] < spent[RandomWalk] / 4


def test_a_misled_walk_gets_shorter():
    kernel, target = DelayedAcceptance(), Tempered(half_moon(), 1.0)
    state, even = target.evaluate(exact(500), False), torch.full((500,), 1 / 500, dtype=F)
    x = 3 * state["position"]
    parameters = {**kernel.start(2, F), "emulator": fit_emulator(x, -x[:, :1] * 30), "steps": 16}
    moved = move(kernel, Rng(0), target, state, even, parameters, sweeps=12)
    assert moved.parameters["steps"] < 16


def test_a_quadratic_is_emulated_exactly_and_waves_by_the_process():
    x, y = Rng(0).normal((300, 3)), Rng(1).normal((200, 3))

    def smooth(x):
        return torch.stack([1 - x[:, 0] * x[:, 1] + x[:, 2].square(), (2 * x[:, 0]).sin() * x[:, 1]], 1)

    found = predict(fit_emulator(x, smooth(x)), y)
    inside = y.norm(dim=1) < 2
    error = (found - smooth(y))[inside]
    assert float(error[:, 0].abs().max()) < 0.02
    assert float(error[:, 1].std()) < 0.5 * float(smooth(y)[inside, 1].std())


def test_the_spread_is_the_error_at_new_points():
    x, y = Rng(0).normal((200, 2)), Rng(1).normal((2000, 2))
    noisy = [v[:, :1] + 0.1 * Rng(k).at("noise").normal((len(v), 1)) for k, v in enumerate((x, y))]
    emulator = fit_emulator(x, noisy[0])
    error = (predict(emulator, y) - noisy[1]).square().mean().sqrt()
    assert 0.8 < float(error / emulator["spread"]) < 1.25
    assert fit_emulator(x[:5], noisy[0][:5]) == {}


def test_knobs_out_of_range_are_refused():
    with pytest.raises(ValueError, match="steps"):
        DelayedAcceptance(steps=0)
    with pytest.raises(ValueError, match="acceptance"):
        DelayedAcceptance(acceptance=1.0)
