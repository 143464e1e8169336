"""The checks of a user's model: right ones pass, each broken twin is found and named."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Beta, Dirichlet, HalfNormal, Normal, StudentT

import motes
from motes.density.checks import CHECKS, check
from motes.rng.distributions import register

ZERO = torch.zeros((), dtype=torch.float64)
X = torch.linspace(-1, 1, 9, dtype=torch.float64)
PRIOR = {"slope": Normal(ZERO, 1.0), "noise": HalfNormal(ZERO + 1)}


def right(p):
    return Normal(p["slope"][:, None] * X, p["noise"][:, None] + 0.1).log_prob(0.5 * X).sum(1)


def detached(p):
    return right({**p, "slope": p["slope"].detach()}) + 0 * p["slope"]


def stepped(p):
    return right({**p, "slope": p["slope"].mul(2).round() / 2})


def mixed(p):
    return right({**p, "slope": p["slope"] - p["slope"].mean()})


calls = [0]


def forgetful(p):
    calls[0] += 1
    return right(p) + calls[0]


class Shifted(Normal):
    """Draws half a standard deviation off its density."""


@register(Shifted)
def shifted(rng, d, n):
    return rng.normal((n, *d.batch_shape)) * d.scale + d.loc + 0.5


class Wide(Normal):
    """Draws with twice its standard deviation."""


@register(Wide)
def wide(rng, d, n):
    return rng.normal((n, *d.batch_shape)) * 2 * d.scale + d.loc


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_right_model_passes(seed: int, dtype: torch.dtype) -> None:
    prior = {**PRIOR, "p": Beta(ZERO + 2, ZERO + 1), "w": Dirichlet(torch.ones(3).double()), "t": StudentT(ZERO + 3)}
    found = check(motes.Density(right, prior, vectorised=True, dtype=dtype), seed=seed)
    assert found.ok and len(found.findings) == len(CHECKS), str(found)


@pytest.mark.parametrize(
    ("likelihood", "name", "said"),
    [
        (detached, "gradient", "log-likelihood is wrong for slope;"),
        (stepped, "gradient", "zero everywhere for slope,"),
        (mixed, "batch", "changes when it is evaluated"),
        (forgetful, "batch", "two calls at the same points differ"),
    ],
)
def test_a_broken_likelihood_is_found(likelihood, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(A density that is no function of its point is refused as soon as it is made, where two points show it.)"""
    monkeypatch.setattr("motes.laws.density.must_stand_alone", lambda *_: None)
    found = check(motes.Density(likelihood, PRIOR, vectorised=True), only=[name])
    assert not found.ok and said in found.findings[0].said, str(found)


@pytest.mark.parametrize(("family", "what"), [(Shifted, "centre"), (Wide, "scale")])
def test_draws_that_are_not_the_priors_are_found(family, what: str) -> None:
    prior = {**PRIOR, "slope": family(ZERO, ZERO + 1)}
    found = check(motes.Density(right, prior, vectorised=True), only=["prior"])
    assert not found.ok and f"slope from the prior have another {what}" in found.findings[0].said, str(found)


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
@pytest.mark.parametrize("seed", range(5))
def test_data_in_float32_make_no_false_alarm(seed: int) -> None:
    x, prior = torch.linspace(-1, 1, 20), {"slope": Normal(0.0, 2.0), "shift": Normal(0.0, 2.0)}
    found = check(motes.Density(lambda p: Normal(p["shift"] + p["slope"] * x, 0.3).log_prob(x).sum(), prior), seed=seed)
    assert found.ok and found.findings[1].numbers["float32"], str(found)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(motes.errors.UnknownName, match="batch, calibration, geweke, gradient, predictive, prior"):
        check(motes.Density(right, PRIOR, vectorised=True), only=["all"])
