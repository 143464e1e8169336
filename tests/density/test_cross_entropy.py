"""The cross-entropy method against Gaussian tails and closed-form evidence, with its error bar and its broken twins."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Exponential, Normal

import motes
from motes.density.rare.cross_entropy import CrossEntropy
from motes.errors import FileError, MotesError, NanLogPotential, ShapeError
from motes.laws import Density
from motes.laws.fits.proposal import Started

Z = 4.9  # two-sided level 1e-6
F64 = torch.float64


def reference(d: int) -> Density:
    """X is N(0, I) in d dimensions."""
    return Density(lambda x: torch.zeros(len(x)), Normal(torch.zeros(d, dtype=F64), 1.0), vectorised=True)


def total(x):
    return x.sum(1) / math.sqrt(x.shape[1])


def log_tail(b: float) -> float:
    """log P(N(0, 1) > b)."""
    return math.log(0.5 * math.erfc(b / math.sqrt(2)))


def two_sided(x):
    return x[:, 0].abs()


def shifted() -> tuple[CrossEntropy, float]:
    """Prior N(0, I) in four dimensions, likelihood N(2 | x, 0.09 I), and the log evidence."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)
    prior = Normal(torch.zeros(4, dtype=F64), 1.0)
    density = Density(lambda x: (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1), prior, vectorised=True)
    return CrossEntropy(density), 4 * (-0.5 * math.log(2 * math.pi * 1.09) - 2 / 1.09)


def waiting() -> tuple[CrossEntropy, float]:
    """The sum of two exponential times, on the logarithms of the times, is above 20: a Gamma(2) tail."""
    prior = {"a": Exponential(torch.ones((), dtype=F64)), "b": Exponential(torch.ones((), dtype=F64))}
    density = Density(lambda v: torch.zeros(len(v["a"])), prior, vectorised=True)
    # the event is a thin boomerang in the logarithms: two components, and tails heavy enough for both times
    model = CrossEntropy(density, performance=lambda v: v["a"] + v["b"], level=12.0, components=2)
    return model, -12 + math.log(13)


def tilted() -> tuple[CrossEntropy, float]:
    """A likelihood beside the event: E[exp(x_1); x_1 > 4] = exp(1/2) P(N(1, 1) > 4)."""
    density = Density(lambda x: x[:, 0], Normal(torch.zeros(2, dtype=F64), 1.0), vectorised=True)
    return CrossEntropy(density, performance=lambda x: x[:, 0], level=4.0), 0.5 + log_tail(3)


CASES = {
    "d=1, 1e-9": (lambda: (CrossEntropy(reference(1), performance=total, level=6.0), log_tail(6)), 500),
    "d=20, 3e-7": (lambda: (CrossEntropy(reference(20), performance=total, level=5.0), log_tail(5)), 1000),
    "diagonal": (
        lambda: (CrossEntropy(reference(4), performance=lambda x: x[:, 0], level=5.0, family="diagonal"), log_tail(5)),
        500,
    ),
    "both tails": (
        lambda: (CrossEntropy(reference(2), performance=two_sided, level=4.0, components=2), log_tail(4) + math.log(2)),
        1000,
    ),
    "waiting times": (waiting, 1000),
    "with a likelihood": (tilted, 500),
    "a density": (shifted, 500),
}


def runs(model: CrossEntropy, truth: float, n: int, seeds: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the log evidence and reported standard errors."""
    done = [motes.sample(model, n, seed=s, progress=False) for s in range(seeds)]
    return np.array([r.log_evidence - truth for r in done]), np.array([r.log_evidence_se for r in done])


@pytest.mark.parametrize("case", CASES)
def test_probabilities_and_evidence_with_their_error_bars(case):
    """Would catch a bias of 10 % (a ratio's standard deviation is 0.05 to 0.1), and errors half their size."""
    problem, n = CASES[case]
    model, truth = problem()
    error, se = runs(model, truth, n)
    ratio = np.exp(error)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(24)
    assert ratio.std(ddof=1) < 0.25
    assert (np.abs(error) < 1.96 * se).sum() >= 15  # 14 or fewer of 24 have probability 1e-7 at 95 %
    assert (np.abs(error) < 1.96 * se / 4).sum() < 15  # a twin whose errors are too small


def test_a_proposal_that_is_not_normalised_is_seen(monkeypatch):
    """The broken twin."""
    right = Started.log_reference
    monkeypatch.setattr(Started, "log_reference", lambda s, z, p: right(s, z, p) + 0.1)
    ratio = np.exp(runs(CrossEntropy(reference(2), performance=total, level=4.0), log_tail(4), 500)[0])
    assert abs(ratio.mean() - 1) > Z * ratio.std(ddof=1) / math.sqrt(24)


def test_a_gaussian_that_is_not_smoothed_gets_stuck_below_the_level():
    """Why covariances change slowly: fitted to the top of a narrow Gaussian they shrink faster than the level rises."""
    knobs = {"spread": 1.0, "freedom": math.inf, "defence": 0.0, "most": 40}
    with pytest.raises(MotesError, match="was not reached"):
        for s in range(10):
            motes.sample(CrossEntropy(reference(1), performance=total, level=6.0, **knobs), 500, seed=s, progress=False)


def test_the_last_round_is_unbiased_given_the_rounds_before():
    """From one checkpoint on, other numbers for the last round only: 200 estimates with one proposal."""
    model = CrossEntropy(reference(2), performance=total, level=4.0)
    run = motes.sample(model, 300, seed=0, progress=False)
    before = motes.sample(model, 300, seed=0, progress=False, max_steps=run.particles.t - 1).particles
    last = [model.step(motes.Rng(s), before) for s in range(200)]
    assert all(model.done(p) for p in last)
    ratio = np.exp([p.log_evidence - log_tail(4) for p in last])
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(200)


def test_the_run_says_what_it_did_and_its_particles_are_in_the_event():
    run = motes.sample(CrossEntropy(reference(2), performance=total, level=4.0), 500, seed=0, progress=False)
    assert run.setup["quantity"] == "log probability"
    level = run.trace["level"]
    assert (np.diff(level) >= 0).all() and level[-1] == level[-3] == 4.0
    assert (total(run.draws(100)) >= 4).all()
    mean = run.mean(lambda x: total(x))
    hazard = math.exp(-8 - 0.5 * math.log(2 * math.pi) - log_tail(4))
    assert abs(float(mean) - hazard) < Z * float(mean.se)
    assert motes.sample(shifted()[0], 500, seed=0, progress=False).setup["quantity"] == "log evidence"


def test_whole_numbers_as_performance():
    """P(number of coordinates above 1 is at least 8 of 10), binomial."""
    p = math.exp(log_tail(1))
    truth = math.log(sum(math.comb(10, k) * p**k * (1 - p) ** (10 - k) for k in range(8, 11)))
    error, _ = runs(CrossEntropy(reference(10), performance=lambda x: (x > 1).sum(1), level=8.0), truth, 2000, 20)
    ratio = np.exp(error)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(20)


def test_an_interrupted_run_is_resumed_bit_for_bit_and_another_performance_is_refused(tmp_path):
    model, path = CrossEntropy(reference(3), performance=total, level=4.0), tmp_path / "run"
    whole = motes.sample(model, 300, seed=2, progress=False)
    for stop in (0, 2):
        motes.sample(model, 300, seed=2, progress=False, checkpoint=path, max_steps=max(stop, 1))
        with pytest.raises(FileError, match="performance of particle 0"):
            motes.resume(path, CrossEntropy(reference(3), performance=lambda x: x.sum(1), level=4.0), progress=False)
        rest = motes.resume(path, CrossEntropy(reference(3), performance=total, level=4.0), progress=False)
        assert rest.log_evidence == whole.log_evidence and torch.equal(rest.view, whole.view)


def test_faults_are_errors():
    with pytest.raises(ValueError, match="no family is called 'x'; there are: diagonal, full"):
        CrossEntropy(reference(2), performance=total, level=1.0, family="x")
    bad = ({"elite": 0.0}, {"smoothing": 1.5}, {"spread": 0.0}, {"defence": 1.0}, {"refine": 0})
    for knobs in bad:
        with pytest.raises(ValueError, match="must"):
            CrossEntropy(reference(2), performance=total, level=1.0, **knobs)
    with pytest.raises(ValueError, match="both"):
        CrossEntropy(reference(2), performance=total)
    with pytest.raises(ValueError, match="finite"):
        CrossEntropy(reference(2), performance=total, level=math.inf)
    with pytest.raises(ShapeError, match="performance must map"):
        motes.sample(CrossEntropy(reference(2), performance=lambda x: x, level=1.0), 50, seed=0, progress=False)
    with pytest.raises(NanLogPotential, match="performance is NaN for particles"):
        motes.sample(
            CrossEntropy(reference(2), performance=lambda x: x[:, 0].sqrt(), level=1.0), 50, seed=0, progress=False
        )
    with pytest.raises(MotesError, match=r"was not reached in 5 rounds, only 0\.99"):
        bounded = CrossEntropy(reference(2), performance=lambda x: x[:, 0].clamp(max=0.99), level=4.0, most=5)
        motes.sample(bounded, 200, seed=0, progress=False)
