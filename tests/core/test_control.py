"""Control variates: exact where they must be, smaller errors elsewhere, and error bars that stay honest."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import motes
from motes.core.estimate.control_variates import controlled
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.errors import MotesError

Z = 4.9
GRID = torch.linspace(-12, 12, 200001, dtype=torch.float64)


class Tilted(FeynmanKac):
    """Weighted draws of N(0, 1) for the target N(0, 1) sigmoid(2x), with its score and `noise` useless ones beside."""

    def __init__(self, noise: int = 0, wrong: bool = False):
        self.noise, self.wrong = noise, wrong

    def init(self, rng, n):
        x = rng.at("x").normal((n, 1))
        score = -x if self.wrong else -x + 2 * torch.sigmoid(-2 * x)
        useless = rng.at("noise").normal((n, self.noise))
        leaves = {"x": x, "score": torch.cat([score, useless], 1)}
        return Particles.start(leaves, torch.nn.functional.logsigmoid(2 * x[:, 0]))

    def step(self, rng, particles):
        raise AssertionError

    def done(self, particles):
        return True

    def view(self, particles):
        return particles.x["x"][:, 0]

    def score(self, particles):
        return particles.x["score"]


class Walks(FeynmanKac):
    """Stationary chains x' = rho x + sqrt(1 - rho^2) e, seen as x + 1: the target is N(1, 1) in each coordinate."""

    def __init__(self, draws, d=2, rho=0.7):
        self.draws, self.d, self.rho = draws, d, rho

    def init(self, rng, n):
        x, rows = rng.at("start").normal((n, self.d)), []
        for k in range(self.draws):
            x = self.rho * x + math.sqrt(1 - self.rho**2) * rng.at("move", inner=k).normal((n, self.d))
            rows.append(x)
        return Particles.start(torch.stack(rows, 1), torch.zeros(n, dtype=torch.float64))

    def step(self, rng, particles):
        raise AssertionError

    def done(self, particles):
        return True

    def shows(self):
        return "chains"

    def view(self, particles):
        return particles.x + 1

    def score(self, particles):
        return -particles.x.flatten(0, 1)


def exactly(f) -> float:
    density = torch.exp(-GRID.square() / 2) * torch.sigmoid(2 * GRID)
    return float((density * f(GRID)).sum() / density.sum())


def run(model, n, seed):
    return motes.sample(model, n, seed=seed, progress=False)


def gaussian(d):
    constant = -0.5 * math.log(2 * math.pi * 0.09)
    prior = Normal(torch.zeros(d, dtype=torch.float64), 1.0)
    return motes.Density(lambda x: (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1), prior, vectorised=True)


def test_linear_functions_of_a_gaussian_have_no_error_at_all():
    found = run(motes.Tempering(gaussian(3)), 100, 0)
    plain, sharp = found.mean(), found.mean(control=True)
    assert float(plain.se.min()) > 0.01
    assert float((sharp.value - 2 / 1.09).abs().max()) < 1e-12 and float(sharp.se.max()) < 1e-12
    assert float((run(Walks(50), 12, 0).mean(control=True).value - 1).abs().max()) < 1e-12


def test_several_functions_share_a_regression():
    found = run(motes.Tempering(gaussian(2)), 100, 1)
    square = torch.square
    both = found.mean([None, square], control=True)
    named = found.mean({"x": None, "square": square}, control=True)
    assert torch.equal(both[0].value, named["x"].value) and torch.equal(both[1].se, named["square"].se)
    assert torch.equal(both[1].value, found.mean(square, control=True).value)
    assert torch.equal(found.mean([square])[0].value, found.mean(square).value)
    assert found.mean([], control=True) == []


def coverage(model, f, truth, n, seeds):
    found = [run(model, n, s).mean(f, control=True) for s in range(seeds)]
    return covering(found, truth)


def covering(found, truth):
    value, se = np.array([float(e.value) for e in found]), np.array([float(e.se) for e in found])
    return value - truth, se, float((np.abs(value - truth) < 1.96 * se).mean())


@pytest.mark.parametrize("noise", [0, 30])
def test_controlled_means_are_right_and_their_bars_cover(noise):
    """400 runs of 200: a bias of a quarter of a standard error, or coverage under 0.89 (true 0.95), would be seen."""
    functions = [lambda x: x, torch.square, lambda x: (x > 1).double()]
    found = [run(Tilted(noise), 200, s).mean(functions, control=True) for s in range(400)]
    for k, f in enumerate(functions):
        error, _, covered = covering([each[k] for each in found], exactly(f))
        assert abs(error.mean()) < Z * error.std() / 20, (error.mean(), error.std())
        assert 0.89 < covered <= 1, covered


def test_a_wrong_score_is_seen():
    """The broken twin: the score of the prior has no mean of zero under the target."""
    error, _, covered = coverage(Tilted(wrong=True), lambda x: x, exactly(lambda x: x), 200, 100)
    assert abs(error.mean()) > Z * error.std() / 10 and covered < 0.5


def test_without_cross_fitting_bars_would_lie():
    """The broken twin: 30 useless scores fitted and judged on the same 60 points look like a gain."""
    short, truth = 0, exactly(lambda x: x)
    for seed in range(200):
        r = run(Tilted(30), 60, seed)
        assert r.score is not None
        f, s, w = r.values()[:, None], r.score, r.weight
        centred = s - w @ s
        b = torch.linalg.lstsq(w.sqrt()[:, None] * centred, w.sqrt()[:, None] * (f - w @ f)).solution
        v = (f - s @ b)[:, 0]
        se = float((w.square() * (v - w @ v).square()).sum().sqrt())
        short += abs(float(w @ v) - truth) > 1.96 * se
    assert short > 40, short
    _, _, covered = coverage(Tilted(30), lambda x: x, truth, 60, 200)
    assert covered > 0.85, covered


def test_the_error_shrinks_as_the_bar_says():
    """Against the spread over runs: a sixth or less of the plain variance, and no loss with useless ones."""
    plain = np.array([float(run(Tilted(), 200, s).mean().value) for s in range(200)])
    error, se, _ = coverage(Tilted(), lambda x: x, 0.0, 200, 200)
    assert error.var() < plain.var() / 6
    assert 0.8 < se.mean() / error.std() < 1.25
    error, _, _ = coverage(Tilted(30), lambda x: torch.cos(3 * x), 0.0, 60, 200)
    plain = np.array([float(run(Tilted(30), 60, s).mean(lambda x: torch.cos(3 * x)).value) for s in range(200)])
    assert error.var() < 1.3 * plain.var()


@pytest.mark.parametrize(("chains", "draws"), [(40, 20), (4, 200)])
def test_chains_of_correlated_draws(chains, draws):
    """A cubic under N(1, 1): E = 4, whose variance of 60 the score explains 36 of."""

    def f(x):
        return x[:, 0] ** 3

    found = [run(Walks(draws, rho=0.3), chains, s) for s in range(150)]
    plain = [r.mean(f) for r in found]
    sharp = [r.mean(f, control=True) for r in found]
    value, se = np.array([float(e.value) for e in sharp]), np.array([float(e.se) for e in sharp])
    assert abs(value.mean() - 4) < Z * value.std() / math.sqrt(150)
    assert (np.abs(value - 4) < 1.96 * se).mean() > 0.86
    assert value.var() < 0.6 * np.array([float(e.value) for e in plain]).var()


def test_zero_weights_and_impossible_scores():
    w = torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    value, score = torch.arange(5.0).double()[:, None], torch.zeros(5, 2, dtype=torch.float64)
    assert torch.equal(controlled(value, score, w, torch.arange(5)), value)
    assert torch.equal(controlled(value, value, w, torch.zeros(5, dtype=torch.int64)), value)
    with pytest.raises(MotesError, match="gradient of the target"):
        run(motes.Tempering(gaussian(1), kernel="random-walk"), 20, 0).mean(control=True)


def test_a_posterior_of_real_data_gains():
    """Logistic regression on 30 measurements: the variance of the means is at most a tenth (measured: 2 %)."""
    from motes.density.demo import logistic_regression

    found = run(logistic_regression(), 256, 0)
    gain = (found.mean("slope").se / found.mean("slope", control=True).se).square()
    assert float(gain.median()) > 10, gain
