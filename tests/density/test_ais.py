"""Annealed importance sampling: exactly unbiased evidence, its error bar, and ladders from a pilot."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import motes
from motes.density.annealing.ais import AnnealedImportanceSampling, nearest, spaced
from motes.errors import AllWeightsZero, FileError, MotesError
from motes.laws import Density

Z = 4.9  # two-sided level 1e-6


def gaussian(d: int, y: float = 2.0) -> tuple[Density, float]:
    """Prior N(0, I), likelihood N(y | x, 0.09 I), and the exact log evidence."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)

    def log_likelihood(x):
        return (-0.5 * ((x - y) / 0.3).square() + constant).sum(-1)

    truth = d * (-math.log(2 * math.pi * 1.09) / 2 - y * y / 2 / 1.09)
    return Density(log_likelihood, Normal(torch.zeros(d, dtype=torch.float64), 1.0), vectorised=True), truth


def off(model, truth: float, n: int, seeds: int) -> float:
    """How many of its own standard errors the mean of the estimated evidence is from the truth, in linear scale."""
    found = [motes.sample(model, n, seed=s, progress=False).log_evidence for s in range(seeds)]
    ratio = np.exp(np.array(found) - truth)
    return abs(ratio.mean() - 1) / (ratio.std(ddof=1) / math.sqrt(seeds))


@pytest.mark.parametrize("kernel", [None, "random-walk"])
def test_the_evidence_is_unbiased_with_few_particles(kernel):
    """24 runs of relative spread 0.2 each: a bias of 0.2 would be seen."""
    density, truth = gaussian(2)
    model = AnnealedImportanceSampling(density, kernel=kernel, steps=24, sweeps=2, pilot=64)
    assert off(model, truth, 48, 24) < Z


def test_moves_that_aim_at_another_temperature_are_noticed(monkeypatch):
    density, truth = gaussian(2)
    right = AnnealedImportanceSampling.target
    monkeypatch.setattr(AnnealedImportanceSampling, "target", lambda self, b: right(self, 0.5 * b))
    assert off(AnnealedImportanceSampling(density, steps=24, sweeps=2, pilot=64), truth, 48, 24) > Z


def test_one_long_run_its_error_bar_and_the_moments():
    """8000 independent particles: the error of the log evidence is known to 2 %."""
    density, truth = gaussian(2)
    run = motes.sample(AnnealedImportanceSampling(density), 8000, seed=1, progress=False)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 0.1
    mean = run.mean()
    assert ((mean.value - 2 / 1.09).abs() < Z * mean.se).all() and float(mean.se.max()) < 0.03
    w = (run.log_weight - run.log_weight.max()).exp()
    assert run.log_evidence_se == pytest.approx(float(w.std() / w.mean()) / math.sqrt(8000), rel=1e-3)
    assert not run.trace["resampled"].any()


def test_the_error_bar_covers():
    density, truth = gaussian(2)
    model = AnnealedImportanceSampling(density, pilot=64)
    runs = [motes.sample(model, 128, seed=s, progress=False) for s in range(40)]
    error, se = (np.array(v) for v in zip(*((r.log_evidence - truth, r.log_evidence_se) for r in runs), strict=True))
    assert (np.abs(error) < 1.96 * se).sum() >= 30  # at 95 % fewer have probability 3e-6
    told = np.isfinite(se)  # one with 23 effective particles has weights of too heavy a tail
    assert told.sum() >= 37
    assert 0.6 < se[told].mean() / error.std(ddof=1) < 1.6
    assert (np.abs(error) < 1.96 * 0.4 * se).sum() < 30  # the broken twin


def test_ladders():
    assert spaced([0.25, 0.5, 1.0], 3) == [0.25, 0.5, 1.0]
    assert spaced([0.2, 1.0], 4) == pytest.approx([0.1, 0.2, 0.6, 1.0])
    assert spaced([0.2, 1.0], 1) == [1.0]
    many = spaced(torch.logspace(-3, 0, 30).tolist(), "auto")
    assert many[-1] == 1.0 and len(many) == 95 and all(a < b for a, b in zip([0.0, *many], many, strict=False))
    assert [nearest([0.01, 0.1, 1.0], v) for v in (1e-9, 0.03, 0.04, 0.5, 1.0)] == [0, 0, 1, 2, 2]


def test_given_temperatures_are_used_and_one_of_them_is_importance_sampling():
    density, truth = gaussian(1, y=0.5)
    run = motes.sample(
        AnnealedImportanceSampling(density, temperatures=(0.1, 0.4, 1), pilot=64), 500, seed=0, progress=False
    )
    assert run.trace["temperature"].tolist() == [0.1, 0.4, 1.0]
    plain = motes.sample(AnnealedImportanceSampling(density, steps=1), 4000, seed=0, progress=False)
    assert plain.trace["t"].tolist() == [0.0]
    assert abs(plain.log_evidence - truth) < Z * plain.log_evidence_se < 0.2
    assert torch.equal(plain.log_weight, density.evaluate(plain.view)["log_likelihood"])


def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path):
    def model(y=2.0):
        return AnnealedImportanceSampling(gaussian(2, y)[0], steps=12, pilot=64)

    whole = motes.sample(model(), 50, seed=5, progress=False)
    path = tmp_path / "run.motes"
    motes.sample(model(), 50, seed=5, progress=False, checkpoint=path, max_steps=4)
    with pytest.raises(FileError, match="log-likelihood"):
        motes.resume(path, model(1.9), progress=False)
    rest = motes.resume(path, model(), progress=False)
    assert torch.equal(rest.log_weight, whole.log_weight) and torch.equal(rest.view, whole.view)


def test_faults_are_errors_and_thin_weights_have_no_error_bar():
    density, _ = gaussian(3)
    wrong: list[dict[str, Any]] = [{"steps": 0}, {"sweeps": 0}, {"pilot": 2}, {"temperatures": (0.5, 0.4, 1.0)}]
    for knobs in [*wrong, {"temperatures": ()}]:
        with pytest.raises(ValueError, match=next(iter(knobs))):
            AnnealedImportanceSampling(density, **knobs)
    run = motes.sample(AnnealedImportanceSampling(density, steps=1), 50, seed=0, progress=False)
    assert math.isnan(run.log_evidence_se) and "temperatures" in run.standard_error.reason
    nowhere = Density(
        lambda x: torch.where(x[:, 0] > 100, 0.0, -math.inf),
        Normal(torch.zeros(1, dtype=torch.float64), 1.0),
        vectorised=True,
    )
    with pytest.raises(AllWeightsZero, match="the pilot of annealed importance sampling"):
        motes.sample(AnnealedImportanceSampling(nowhere, kernel="random-walk"), 50, seed=0, progress=False)
    with pytest.raises(MotesError, match="gradients"):
        AnnealedImportanceSampling(
            Density(lambda x: x[:, 0].detach(), Normal(torch.zeros(1, dtype=torch.float64), 1.0)), kernel="hmc"
        )
