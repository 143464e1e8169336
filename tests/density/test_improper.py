"""Posteriors that cannot be normalised say so, and heavy tails are not taken for them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Cauchy, Dirichlet, HalfCauchy, Normal, StudentT

import motes
from motes import Density, Rng
from motes.density import WasteFree
from motes.errors import MotesError
from motes.laws.adapters import from_torch
from motes.laws.improper import improper

F = torch.float64
ONE = torch.ones((), dtype=F)
WIDE = Normal(torch.zeros(1, dtype=F), 1.0)


def growing(power: float = 1.0) -> Density:
    return Density(lambda x: power * x.square().sum(1), WIDE, vectorised=True)


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
@pytest.mark.parametrize("model", [motes.Tempering, WasteFree])
def test_a_posterior_that_grows_without_end_is_called_improper(model):
    """exp(x^2) under N(0, 1)."""
    try:
        run = motes.sample(model(growing()), 64, seed=0, progress=False)
    except MotesError as error:
        said = [str(error)]
    else:
        said = [r for r in run.remarks if r.withholds]
        assert said and math.isnan(run.log_evidence_se)
    assert any("improper" in r for r in said)


def test_particles_that_run_off_do_not_do_so_without_end(monkeypatch):
    """Above temperature 1/2 exp(x^2) under N(0, 1) has no normaliser, and what comes near it is ever longer."""
    with pytest.raises(MotesError, match=r"after 32 steps, the posterior is improper"):
        motes.sample(motes.Tempering(growing(), careful=False), 256, seed=0, progress=False)
    monkeypatch.setattr("motes.density.annealing.tempering.improper", lambda law, z: [])
    run = motes.sample(motes.Tempering(growing(), careful=False), 256, seed=0, progress=False, max_steps=40)
    assert not run.particles.shared["final"]


def test_one_that_only_just_falls_is_not():
    assert not improper(growing(0.45), 3 * Rng(0).normal((200, 1)))
    assert improper(growing(0.55), 3 * Rng(0).normal((200, 1)))


def test_a_density_that_data_leave_open_is_improper():
    """One coordinate of three has no prior and no data."""
    start = Normal(torch.zeros(3, dtype=F), 5.0)
    flat = from_torch(lambda x: -0.5 * x[:, :2].square().sum(1), start=start, vectorised=True)
    z = Rng(0).normal((100, 3))
    z[:, :2] = 0  # rays along the open direction, which those of a population come near to in few dimensions only
    assert improper(flat, z)
    assert not improper(from_torch(lambda x: -0.5 * x.square().sum(1), start=start, vectorised=True), z)


HEAVY = {
    "cauchy": ({"x": Cauchy(torch.zeros(5, dtype=F), ONE)}, lambda v: 0 * v["x"].sum(1)),
    "student": ({"x": StudentT(3 * ONE, torch.zeros(4, dtype=F))}, lambda v: 0 * v["x"].sum(1)),
    "scale": (
        {"s": HalfCauchy(ONE), "x": Normal(torch.zeros(3, dtype=F), ONE)},
        lambda v: -0.5 * (v["x"] / v["s"][:, None]).square().sum(1) - 3 * v["s"].log(),
    ),
    "simplex": ({"w": Dirichlet(torch.full((4,), 0.2, dtype=F))}, lambda v: v["w"][:, 0].log()),
    "wall": ({"x": Normal(torch.zeros(2, dtype=F), ONE)}, lambda v: torch.where(v["x"][:, 0] > 0, 0.0, -math.inf)),
}


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_tails_and_walls_are_proper(name):
    prior, likelihood = HEAVY[name]
    density = Density(likelihood, prior, vectorised=True)
    for seed in range(5):
        z = density.sample(Rng(seed), 300)
        alive = density.evaluate(z)["log_likelihood"] > -math.inf
        assert not improper(density, z[alive])


@pytest.mark.parametrize("power", [0.4, 1.0])
def test_copies_of_one_particle_lie_on_a_ray_from_the_reference(power):
    """exp(power x^2) under N(0, 1): proper below a half, in a population that has collapsed onto one point too."""
    assert bool(improper(growing(power), torch.full((20, 1), 5.0, dtype=F))) == (power > 0.5)


@pytest.mark.parametrize("place", [0.0, 30.0])
def test_neither_a_ray_along_an_axis_nor_rounding_is_proof(place):
    """Cauchy laws fall like s^-2 in each coordinate, so along an axis of the plane no faster than s^2 grows; written
    as a ratio to a normal prior they are what rounding leaves of two numbers of 1e18."""
    law = Density(
        lambda x: (Cauchy(0 * x, 1.0).log_prob(x) - Normal(0 * x, 1.0).log_prob(x)).sum(1),
        Normal(torch.zeros(2, dtype=torch.float64), 1.0),
    )
    z = 300 * Rng(1).at("z").normal((101, 2))
    z[0] = torch.stack([torch.tensor(place, dtype=torch.float64), z[:, 1].median()])
    assert improper(law, z) == []
