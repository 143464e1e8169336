"""The ensemble Föllmer sampler against closed forms: unbiased whatever the drift, and better for a good one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import motes
from motes.density import follmer
from motes.density.follmer import Follmer
from motes.errors import FileError, MotesError
from motes.laws import Density

Z = 4.9  # two-sided level 1e-6
STANDARD = Normal(torch.zeros(2, dtype=torch.float64), 1.0)


def gaussian(s: float, c: float, shift: float = 0.0) -> tuple[Density, float]:
    """Prior N(0, I) in two dimensions, likelihood N(c | x, s^2 I), and the log evidence."""
    constant = -math.log(2 * math.pi * s * s) + shift

    def log_likelihood(x):
        return (-0.5 * ((x - c) / s).square()).sum(-1) + constant

    truth = -math.log(2 * math.pi * (1 + s * s)) - c * c / (1 + s * s) + shift
    return Density(log_likelihood, STANDARD, vectorised=True), truth


def two_modes() -> tuple[Density, float]:
    """Prior N(0, I), likelihood 0.3 N(1.5 | x, 0.5^2 I) + 0.7 N(-1.5 | x, 0.4^2 I), and the log evidence."""
    parts = ((0.3, 1.5, 0.5), (0.7, -1.5, 0.4))

    def one(x, weight, m, s):
        return -0.5 * ((x - m) / s).square().sum(-1) + math.log(weight / (2 * math.pi * s * s))

    def exact(weight, m, s):
        return weight * math.exp(-m * m / (1 + s * s)) / (2 * math.pi * (1 + s * s))

    density = Density(lambda x: torch.logaddexp(*(one(x, *p) for p in parts)), STANDARD, vectorised=True)
    return density, math.log(sum(exact(*p) for p in parts))


def ratios(model: Follmer, truth: float, n: int, seeds: int, **knobs) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of the evidence over the truth, and the reported standard errors of its logarithm."""
    runs = [motes.sample(model, n, seed=s, progress=False, **knobs) for s in range(seeds)]
    return np.exp([r.log_evidence - truth for r in runs]), np.array([r.log_evidence_se for r in runs])


def score(ratio: np.ndarray) -> float:
    """How many of its standard errors the mean ratio is from 1."""
    return abs(ratio.mean() - 1) / (ratio.std(ddof=1) / math.sqrt(len(ratio)))


@pytest.mark.parametrize("problem", [lambda: gaussian(0.3, 2.0), two_modes])
def test_evidence_and_its_error_bar(problem):
    """Would catch a bias of 4 % (the ratios' standard deviation is about 0.04), and errors half their size."""
    density, truth = problem()
    ratio, se = ratios(Follmer(density, steps=16, location=0.0, scale=1.0), truth, 128, 24)
    assert score(ratio) < Z
    assert ratio.std(ddof=1) < 0.1
    covered = (np.abs(np.log(ratio)) < 1.96 * se).sum()
    assert covered >= 15  # 14 or fewer of 24 have probability 1e-7 at 95 %
    assert (np.abs(np.log(ratio)) < 1.96 * se / 4).sum() < 15  # a twin whose errors are too small


CASES = {
    "never resampled": ({}, {"ess_threshold": 0.0}),
    "always resampled": ({}, {"ess_threshold": 1.0, "resampling": "multinomial"}),
    "own draws only": ({"shared": False, "draws": 4}, {"ess_threshold": 0.5}),
    "one step": ({"steps": 1}, {}),
    "another Gaussian": ({"location": (0.5, -0.5), "scale": (1.5, 1.2)}, {"ess_threshold": 1.0}),
    "a Gaussian from the prior": ({"location": None, "scale": None}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_evidence_is_unbiased_for_few_particles_and_steps(case):
    """Eight particles, three steps: would catch a bias of 10 % (the ratios' standard deviation is 0.16 to 0.27)."""
    density, truth = gaussian(1.0, 1.0)
    knobs, engine = CASES[case]
    ratio, _ = ratios(Follmer(density, **{"steps": 3, "location": 0.0, "scale": 1.0, **knobs}), truth, 8, 160, **engine)
    assert score(ratio) < Z
    assert ratio.std(ddof=1) < 0.4


def nonsense(u, y, log_f, t):
    """Neither the drift nor what lies ahead, but known before the noise: of everybody's places and draws."""
    return torch.sin(3 * u.flip(0)) + y.mean(0), 0.5 * torch.cos(u).sum(1) + log_f.max()


def test_any_drift_and_any_twist_that_are_known_before_the_noise_are_exact(monkeypatch):
    density, truth = gaussian(1.0, 1.0)
    model = Follmer(density, steps=4, location=0.0, scale=1.0)
    monkeypatch.setattr(follmer, "_pooled", nonsense)
    assert score(ratios(model, truth, 16, 160, ess_threshold=1.0)[0]) < Z


def test_half_of_girsanovs_formula_is_not_enough(monkeypatch):
    """The broken twin: path weights without the half square of the drift."""
    density, truth = gaussian(1.0, 1.0)
    right = Follmer.step

    def wrong(self, rng, particles):
        h = self._time(particles.t + 1) - self._time(particles.t)
        lost = 0.5 * h * particles.x["drift"].square().sum(1)
        moved = right(self, rng, particles)
        return replace(moved, log_weight=moved.log_weight + lost)

    monkeypatch.setattr(Follmer, "step", wrong)
    assert score(ratios(Follmer(density, steps=4, location=0.0, scale=1.0), truth, 16, 160)[0]) > Z


def exact(s: float, c: float):
    """The drift and the log of what lies ahead for the prior N(0, I) and likelihood N(c | x, s^2 I)."""

    def pooled(u, y, log_f, t):
        v = s * s + 1 - t  # E N(c | u + sqrt(1 - t) Z, s^2 I) = N(c | u, (s^2 + 1 - t) I)
        return (c - u) / v, -0.5 * (c - u).square().sum(1) / v - math.log(2 * math.pi * v)

    return pooled


def test_with_the_exact_drift_the_weights_have_next_to_no_spread(monkeypatch):
    """Their standard deviation falls with the number of steps, to nothing for the Föllmer process itself."""
    density, truth = gaussian(0.5, 1.0)
    monkeypatch.setattr(follmer, "_pooled", exact(0.5, 1.0))
    spread = {}
    for steps in (8, 32, 128):
        model = Follmer(density, steps=steps, draws=2, location=0.0, scale=1.0)
        run = motes.sample(model, 400, seed=0, progress=False, ess_threshold=0.0)
        spread[steps] = float(run.log_weight.std())
        assert abs(run.log_evidence - truth) < Z * spread[steps] / 20 + spread[steps] ** 2 / 20
    assert spread[32] < 0.7 * spread[8] and spread[128] < 0.7 * spread[32] and spread[128] < 0.2


def test_the_estimated_drift_is_the_exact_one():
    """4000 draws near each particle: errors of a few hundredths; without the term of v they are larger."""
    s, c, t = 0.5, 1.0, 0.75
    density, _ = gaussian(s, c)
    u = torch.tensor([[0.2, 0.4], [0.5, 0.1]], dtype=torch.float64)
    model = Follmer(density, steps=16, draws=4000, location=0.0, scale=1.0)
    shared = {"location": torch.zeros(2).double(), "scale": torch.ones(2).double()}
    found = model._look(motes.Rng(0), u, torch.zeros(2).double(), t, shared)
    drift, twist = exact(s, c)(u, None, None, t)
    assert torch.allclose(found["drift"], drift, atol=0.15) and torch.allclose(found["twist"], twist, atol=0.05)
    alone = Follmer(density, steps=16, draws=4000, shared=False, location=0.0, scale=1.0)._look(
        motes.Rng(0), u, torch.zeros(2).double(), t, shared
    )
    assert torch.allclose(alone["drift"], drift, atol=0.2) and torch.allclose(alone["twist"], twist, atol=0.08)


def test_a_likelihood_with_zeros_is_unbiased():
    """P(x_1 > 1) under N(0, I): most draws tell nothing, and then what they said last stays."""
    density = Density(lambda x: torch.where(x[:, 0] > 1, 0.0, -math.inf), STANDARD, vectorised=True)
    truth = math.log(0.5 * math.erfc(1 / math.sqrt(2)))
    model = Follmer(density, steps=6, draws=2, shared=False, location=0.0, scale=1.0)
    assert score(ratios(model, truth, 32, 200)[0]) < Z


def test_a_large_constant_changes_nothing():
    a, b = (
        motes.sample(Follmer(gaussian(0.5, 1.0, c)[0], steps=8), 32, seed=1, progress=False) for c in (0.0, -5000.0)
    )
    assert b.log_evidence == pytest.approx(a.log_evidence - 5000, abs=1e-8)
    assert torch.allclose(a.view, b.view, atol=1e-8)


def test_an_interrupted_run_is_resumed_bit_for_bit_and_other_data_are_refused(tmp_path):
    model, path = Follmer(gaussian(0.5, 1.0)[0], steps=6), tmp_path / "run"
    whole = motes.sample(model, 50, seed=3, progress=False)
    motes.sample(model, 50, seed=3, progress=False, checkpoint=path, max_steps=3)
    with pytest.raises(FileError, match="log-likelihood"):
        motes.resume(path, Follmer(gaussian(0.5, 1.1)[0], steps=6), progress=False)
    with pytest.raises(FileError, match="draws"):
        motes.resume(path, Follmer(gaussian(0.5, 1.0)[0], steps=6, draws=4), progress=False)
    rest = motes.resume(path, Follmer(gaussian(0.5, 1.0)[0], steps=6), progress=False)
    assert rest.log_evidence == whole.log_evidence and torch.equal(rest.view, whole.view)


def test_faults_are_errors():
    density, _ = gaussian(0.5, 1.0)
    for knobs in ({"steps": 0}, {"draws": 3}, {"scale": 0.0}, {"scale": (1.0, -1.0)}, {"location": (1.0,)}):
        with pytest.raises(ValueError, match=r"must|need"):
            Follmer(density, **knobs)
    wrong = {"location": (math.nan, [0.0, math.inf]), "scale": (math.inf, math.nan, torch.ones(2, 2))}
    for name, values in wrong.items():  # nothing of that may end in weights that are NaN, or all zero, steps later
        for value in values:
            with pytest.raises(ValueError, match=f"{name} must be"):
                Follmer(density, **{name: value})
    tensors = Follmer(density, steps=4, location=torch.zeros(2), scale=torch.ones(2))
    runs = [
        motes.sample(m, 20, seed=0, progress=False) for m in (tensors, Follmer(density, steps=4, location=0, scale=1))
    ]
    assert torch.equal(runs[0].view, runs[1].view)
    density.levels = 2
    with pytest.raises(MotesError, match="discrete"):
        Follmer(density)
