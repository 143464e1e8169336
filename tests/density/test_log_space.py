"""Priors whose draws underflow: their density, their draws, and what runs make of them."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from scipy.special import digamma, gammaln
from torch.distributions import Beta, Chi2, Dirichlet, Gamma, Independent, InverseGamma, StudentT

import motes
from motes import Density, Rng
from motes.laws.log_space import LogSpace
from motes.laws.parameters import Parameters

F = torch.float64


def real(*v: float) -> torch.Tensor:
    return torch.tensor(v, dtype=F)


ONE_NUMBER = {
    "tiny": Gamma(real(1e-3), real(1e-3)),
    "small": Gamma(real(0.05), real(3.0)),
    "inverse": InverseGamma(real(0.01), real(2.0)),
    "chi2": Chi2(real(0.02)),
}


def density(parameters: Parameters, z: torch.Tensor) -> torch.Tensor:
    values, jacobian, inside = parameters.constrain(z)
    assert jacobian is not None and inside is not None and inside.all()
    return parameters.log_prior(values) + jacobian


@pytest.mark.parametrize("name", ONE_NUMBER)
def test_the_density_of_one_number_is_normalised_and_so_is_each_part_of_it(name):
    prior = ONE_NUMBER[name]
    parameters = Parameters({"x": prior})
    z = torch.linspace(-12, 12, 48001, dtype=F)[:, None]
    mass = density(parameters, z).exp() * (24 / 48000)
    assert abs(float(mass.sum()) - 1) < 1e-6
    x = parameters.constrain(z)[0]["x"][:, 0]
    for level in (1e-90, 1e-20, 1e-3, 0.5, 3.0):
        if name == "inverse":
            exact = stats.invgamma.cdf(level, 0.01, scale=2.0)
        else:
            exact = stats.gamma.cdf(level, float(prior.concentration), scale=1 / float(prior.rate))
        assert abs(float(mass[x <= level].sum()) - exact) < 2e-3


def test_a_density_without_the_slope_of_its_map_is_noticed(monkeypatch):
    right = LogSpace._log_x
    monkeypatch.setattr(LogSpace, "_log_x", lambda self, u: (right(self, u)[0], torch.zeros_like(u)))
    z = torch.linspace(-12, 12, 24001, dtype=F)[:, None]
    mass = density(Parameters({"x": ONE_NUMBER["small"]}), z).exp() * (24 / 24000)
    assert abs(float(mass.sum()) - 1) > 0.1


def test_draws_are_those_of_the_density():
    """About standard normal, so that all kernels can move there, and exactly what the density says."""
    for name, prior in ONE_NUMBER.items():
        parameters = Parameters({"x": prior})
        z = parameters.sample(Rng(3), 4000)[:, 0]
        grid = torch.linspace(-12, 12, 24001, dtype=F)
        cdf = (density(parameters, grid[:, None]).exp() * (24 / 24000)).cumsum(0)
        place = cdf[torch.searchsorted(grid, z).clamp(max=24000)]
        assert stats.kstest(place.numpy(), "uniform").pvalue > 1e-5, name
        assert 0.8 < float(z.std()) < 1.3 and abs(float(z.mean())) < 0.3


def test_beta_and_dirichlet_keep_their_moments():
    n = 20000
    a, b = real(0.01, 0.3), real(0.02, 5.0)
    p = Parameters({"p": Independent(Beta(a, b), 1)})
    draws = p.constrain(p.sample(Rng(1), n))[0]["p"]
    mean = a / (a + b)
    se = (mean * (1 - mean) / (a + b + 1) / n).sqrt()
    assert ((draws.mean(0) - mean).abs() < 4.9 * se).all()
    assert (draws > 0).all() and (draws < 1).all()
    concentration = real(0.05, 0.1, 2.0, 0.5)
    w = Parameters({"w": Dirichlet(concentration)})
    draws = w.constrain(w.sample(Rng(2), n))[0]["w"]
    mean = concentration / concentration.sum()
    se = (mean * (1 - mean) / (concentration.sum() + 1) / n).sqrt()
    assert ((draws.mean(0) - mean).abs() < 4.9 * se).all() and (draws > 0).all()
    torch.testing.assert_close(draws.sum(1), torch.ones(n, dtype=F))


def test_gradients_are_those_of_the_density():
    prior = {"g": Gamma(real(1e-3, 2.0), real(1.0, 1.0)), "p": Beta(real(0.1), real(3.0)), "w": Dirichlet(real(0.2, 4))}
    law = Density(lambda v: v["g"].log().sum(1) - v["g"].sum(1) + v["w"][:, 0], prior, vectorised=True)
    z = law.sample(Rng(5), 20)
    state, step = law.evaluate(z, True), 1e-6
    for j in range(law.dim):
        e = torch.zeros(law.dim, dtype=F)
        e[j] = step
        up, down = law.evaluate(z + e), law.evaluate(z - e)
        for part in ("prior", "likelihood"):
            slope = (up[f"log_{part}"] - down[f"log_{part}"]) / (2 * step)
            torch.testing.assert_close(state[f"{part}_gradient"][:, j], slope, rtol=1e-4, atol=1e-4)
    far = torch.cat([torch.full((1, law.dim), v, dtype=F) for v in (-60.0, -30.0, 30.0, 60.0)])
    _, undefined = law.trial(far, True)
    assert undefined is None


def test_there_and_back():
    prior = {"g": Gamma(real(1e-3), real(1.0)), "p": Beta(real(0.1), real(3.0)), "w": Dirichlet(real(0.2, 0.4, 3.0))}
    parameters = Parameters(prior)
    values = {"g": real(1e-50, 0.2, 4.0)[:, None], "p": real(1e-9, 0.5, 0.999)[:, None]}
    values["w"] = torch.stack([real(0.2, 0.3, 0.5), real(1e-30, 0.5, 0.5), real(0.9, 0.05, 0.05)])
    again = parameters.constrain(parameters.unconstrain(values))[0]
    for name, value in values.items():
        torch.testing.assert_close(again[name], value, rtol=1e-6, atol=0.0)


def test_priors_that_are_safe_keep_their_bijections():
    safe = {"g": Gamma(real(0.1), real(1.0)), "p": Beta(real(0.5), real(0.5)), "w": Dirichlet(real(1.0, 1.0, 1.0))}
    assert all(b.logs is None for b in Parameters(safe | {"t": StudentT(real(3.0))}).blocks)
    assert Parameters(safe).dim == 4


def test_a_precision_with_a_vague_prior_and_a_sparse_dirichlet_have_the_right_evidence():
    """Conjugate: ratios of gamma functions."""
    y, a = real(1.2, -3.1, 0.4, 2.2, -0.7, 1.9, -2.4, 0.1, 3.3, -1.6), 1e-3
    vague = Density(
        lambda v: 5 * v["t"].log()[:, 0] - 0.5 * v["t"][:, 0] * y.square().sum(), {"t": Gamma(real(a), real(a))}
    )
    after, rate = a + 5, a + 0.5 * float(y.square().sum())
    exact = a * math.log(a) - gammaln(a) + gammaln(after) - after * math.log(rate)
    run = motes.sample(motes.Tempering(vague), 400, seed=0, progress=False)
    assert abs(run.log_evidence - exact) < 4.9 * run.log_evidence_se < 1.5
    mean = run.mean(lambda v: v["t"][:, 0].log())
    assert abs(float(mean) - (digamma(after) - math.log(rate))) < 4.9 * float(mean.se)
    counts, total = real(5.0, 2.0, 1.0), 2.0
    sparse = Density(
        lambda v: v["p"][:, :3].log() @ counts, {"p": Dirichlet(torch.full((20,), 0.1, dtype=F))}, vectorised=True
    )
    exact = gammaln(total) - gammaln(total + 8) + sum(gammaln(0.1 + c) - gammaln(0.1) for c in (5, 2, 1))
    assert abs(exact + 16.235) < 1e-3
    run = motes.sample(motes.Tempering(sparse), 400, seed=0, progress=False)
    assert abs(run.log_evidence - exact) < 4.9 * run.log_evidence_se < 1
