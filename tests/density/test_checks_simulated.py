"""Calibration, Geweke's test and predictive checks: right models pass, and each broken twin is found and named."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, Normal

import motes
from motes.core.estimate.ranks import farthest
from motes.core.sample import sample
from motes.density.checks import Setting, check
from motes.density.checks.calibration import DRAWS, band
from motes.kernels import RandomWalk
from motes.kernels.kernel import accepted
from motes.rng import Rng

ONE = torch.ones((), dtype=torch.float64)
PRIOR = {"centre": Normal(0 * ONE, 2 * ONE), "width": HalfNormal(ONE)}
DATA = torch.linspace(-1, 2, 10, dtype=torch.float64)


geweke_file = import_module("motes.density.checks.geweke")


def density(data: Tensor) -> motes.Density:
    return motes.Density(lambda p: Normal(p["centre"], p["width"]).log_prob(data).sum(), PRIOR)


def simulate(rng: Rng, p: dict[str, Tensor]) -> Tensor:
    return p["centre"] + p["width"] * rng.at("noise").normal((10,))


def loud(rng: Rng, p: dict[str, Tensor]) -> Tensor:
    return p["centre"] + 1.6 * p["width"] * rng.at("noise").normal((10,))


def shifted(rng: Rng, p: dict[str, Tensor]) -> Tensor:
    return p["centre"] + 1 + p["width"] * rng.at("noise").normal((10,))


def found(name: str, simulator=simulate, data: Tensor = DATA, **knobs):
    (finding,) = check(density(data), setting=Setting(density, simulator, data=data), only=[name], **knobs).findings
    return finding


REPLICATES = {"calibration": 40, "geweke": 60, "predictive": 40}


@pytest.mark.parametrize("name", REPLICATES)
def test_a_right_model_passes(name: str) -> None:
    assert found(name, replicates=REPLICATES[name]).mark == "ok"


@pytest.mark.parametrize(("simulator", "parameter"), [(loud, "width"), (shifted, "centre")])
@pytest.mark.parametrize("name", ["calibration", "geweke"])
def test_a_simulator_of_another_law_is_found(name: str, simulator, parameter: str) -> None:
    finding = found(name, simulator, replicates=REPLICATES[name])
    assert finding.mark == "FAILED" and parameter in finding.said


def test_data_unlike_the_model_are_found() -> None:
    finding = found("predictive", data=torch.cat([DATA[:9], 400 * ONE[None]]), replicates=60)
    assert finding.mark == "FAILED" and "does not describe" in finding.said
    numbers = found("predictive", replicates=60).numbers["mean"]
    assert numbers["posterior_low"] < numbers["observed"] < numbers["posterior_high"] < numbers["prior_high"]


def test_a_simulator_with_random_numbers_of_its_own_is_found() -> None:
    finding = found("predictive", lambda rng, p: p["centre"] + torch.randn(10).double(), replicates=10)
    assert finding.mark == "FAILED" and "different data" in finding.said


def test_a_wrong_kernel_is_found_by_geweke(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_ratio), torch.isfinite(log_ratio)

    def tuned(*given, **knobs):  # the pilot itself is run by the right kernel
        with monkeypatch.context() as inner:
            inner.setattr("motes.kernels.kernel.accepted", accepted)
            return sample(*given, **knobs)

    right = geweke_file.geweke(Setting(density, simulate, data=DATA), Rng(0), 100, RandomWalk())
    monkeypatch.setattr(geweke_file, "sample", tuned)
    monkeypatch.setattr("motes.kernels.kernel.accepted", always)
    broken = geweke_file.geweke(Setting(density, simulate, data=DATA), Rng(0), 100, RandomWalk())
    assert right.mark == "ok" and broken.mark == "FAILED"


def test_the_band_holds_uniform_ranks_with_its_probability() -> None:
    """5 % leave a 95 % band: 50 of 1000 with standard deviation 7; a pointwise band would be left by far more."""
    limit = band(80, 0.05, Rng(0))
    ranks = Rng(1).integers((1000, 80), DRAWS + 1).numpy()
    left = sum(farthest(r, DRAWS) > limit for r in ranks)
    assert 15 < left < 90 and sum(farthest(r, DRAWS) > 1.96 for r in ranks) > 150
    assert farthest(np.full(80, DRAWS // 2), DRAWS) > limit
