"""Every registered kernel keeps the laws of kernels; broken twins do not."""

import pytest
import torch
from torch.distributions import Normal

from breaks import breaks, decide, decides
from motes.errors import UnknownName
from motes.kernels import HMC, RandomWalk, Sweep, accepted, find_kernel, kernels, move
from motes.kernels.adaptation.scale import fit_scale, pull, scaled
from motes.laws import Density
from motes.laws.parameters import Parameters
from motes.laws.tempered import Tempered
from motes.rng import Rng
from motes.testing import check_kernel

EXACT = [name for name, k in kernels.items() if k.exact]
CONTINUOUS = [name for name in EXACT if not kernels[name].discrete]
ACCEPTING = [name for name in EXACT if decides(kernels[name])]
DEAR = {"delayed-acceptance": 4000}
"""Particles of kernels whose sweeps take long."""


def check(name: str, *laws: str) -> None:
    check_kernel(kernels[name](), laws=laws or None, n=DEAR.get(name, 40_000))


@pytest.mark.parametrize("name", kernels)
def test_a_kernel_keeps_its_laws(name):
    check(name)


@pytest.mark.parametrize("name", ACCEPTING)
def test_without_acceptance_the_target_is_not_invariant(name, monkeypatch):
    def always(rng, log_ratio):
        return torch.ones_like(log_ratio), torch.isfinite(log_ratio)

    decide(monkeypatch, always)
    with breaks("invariant"):
        check(name, "invariant")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_without_the_jacobian_it_is_not(name, monkeypatch):
    right = Parameters.constrain

    def wrong(self, z):
        values, jacobian, inside = right(self, z)
        return values, None if jacobian is None else 0 * jacobian, inside

    monkeypatch.setattr(Parameters, "constrain", wrong)
    with breaks("invariant"):
        check(name, "invariant")


class Loud:
    """An rng whose normal numbers have another variance than the kinetic energy says."""

    def __init__(self, rng: Rng):
        self.rng = rng

    def at(self, *a, **k):
        return Loud(self.rng.at(*a, **k))

    def uniform(self, *a, **k):
        return self.rng.uniform(*a, **k)

    def normal(self, *a, **k):
        return 1.2 * self.rng.normal(*a, **k)


def test_with_the_wrong_mass_it_is_not(monkeypatch):
    right = HMC.sweep
    monkeypatch.setattr(HMC, "sweep", lambda self, rng, *a: right(self, Loud(rng), *a))
    with breaks("invariant"):
        check("hmc", "invariant")


def gaussian(d: int) -> Density:
    prior = Normal(torch.zeros(d, dtype=torch.float64), 1.0)
    return Density(lambda x: -0.25 * x.pow(4).sum(-1), prior, vectorised=True)


def energy_error(steps: int, monkeypatch) -> torch.Tensor:
    seen = []
    decide(monkeypatch, lambda rng, ratio: (seen.append(ratio), accepted(rng, ratio))[1])
    density, kernel = gaussian(3), HMC(jitter=0.0)
    state = density.evaluate(density.sample(Rng(0), 200), True)
    parameters = {**kernel.start(3, torch.float64), "leapfrog_steps": steps, "step_size": 1.0 / steps}
    kernel.sweep(Rng(3), Tempered(density, 1.0), state, parameters)
    monkeypatch.undo()
    return seen[0].abs()


def test_the_energy_error_is_of_second_order(monkeypatch):
    coarse, fine = energy_error(32, monkeypatch), energy_error(64, monkeypatch)
    assert float((coarse.mean() / fine.mean()).log2()) == pytest.approx(2.0, abs=0.02)


def test_a_diverging_trajectory_is_rejected_and_stays_finite():
    density, kernel = gaussian(2), HMC()
    state = density.evaluate(density.sample(Rng(0), 64), True)
    parameters = {**kernel.start(2, torch.float64), "leapfrog_steps": 40, "step_size": 50.0}
    sweep = kernel.sweep(Rng(1), Tempered(density, 1.0), state, parameters)
    assert float(sweep.acceptance.max()) < 1e-6
    assert torch.equal(sweep.state["position"], state["position"])


def test_the_scale_of_each_half_is_the_covariance_of_the_other():
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    x = Rng(0).normal((1001, 3)) @ mix
    w = Rng(1).uniform((1001,))
    w = w / w.sum()
    old = torch.ones(2, 3, dtype=torch.float64)
    s = fit_scale(x, w, "dense", old)
    for factor, half in ((s[0], slice(501, None)), (s[1], slice(501))):
        m = float(w[half].sum() ** 2 / w[half].square().sum())
        exact = torch.cov(x[half].T, aweights=w[half])
        shrunk = exact * (1 - 4 / (m + 4))
        shrunk.diagonal().copy_(exact.diagonal())
        assert torch.allclose(factor @ factor.T, shrunk, rtol=1e-10)
    diagonal = fit_scale(x, w, "diagonal", old)
    assert torch.allclose(diagonal[0] ** 2, torch.cov(x[501:].T, aweights=w[501:]).diagonal())
    moved = x.clone()
    moved[:501] += 7 * Rng(2).normal((501, 3))
    assert torch.equal(fit_scale(moved, w, "dense", old)[0], s[0])
    u = Rng(3).normal((1001, 3))
    assert torch.allclose(scaled(u, s)[600], s[1] @ u[600]) and torch.allclose(pull(u, s)[3], s[0].T @ u[3])


def test_a_collapsed_population_keeps_the_old_scale():
    old = torch.full((2, 2), 3.0, dtype=torch.float64)
    x = Rng(0).normal((1, 2)).expand(50, 2).contiguous()
    assert fit_scale(x, torch.full((50,), 0.02, dtype=torch.float64), "auto", old) is old
    one = torch.zeros(50, dtype=torch.float64)
    one[4] = 1.0
    assert fit_scale(Rng(0).normal((50, 2)), one, "auto", old) is old


@pytest.mark.parametrize("name", ["random-walk", "hmc"])
def test_the_step_follows_the_acceptance(name):
    kernel = kernels[name]()
    start, one = kernel.start(10, torch.float64), torch.ones(1, dtype=torch.float64)
    low, high = (kernel.learn(start, Sweep({}, a * one, 1), one)["step_size"] for a in (0.01, 0.99))
    assert low < start["step_size"] <= high


def test_unknown_kernels_and_knobs_are_errors():
    with pytest.raises(UnknownName, match="hmc"):
        find_kernel("nonsense")
    with pytest.raises(UnknownName, match="perhaps you meant 'chees'"):
        find_kernel("cheese")
    for name in ("NUTS", "nuts", "Random_Walk", "RandomWalk", "IndependenceMetropolis"):
        assert find_kernel(name).name.replace("-", "") in "nutsrandomwalkindependence"
    with pytest.raises(ValueError, match="jitter"):
        HMC(jitter=1.5)


def test_auto_sweeps_stop_when_the_start_is_forgotten():
    density = gaussian(4)
    state = density.evaluate(density.sample(Rng(0), 2000), False)
    weight = torch.full((2000,), 1 / 2000, dtype=torch.float64)
    kernel = RandomWalk()
    moved = move(
        kernel, Rng(1), Tempered(density, 1.0), state, weight, kernel.start(4, torch.float64), max_correlation=0.3
    )
    assert moved.info["correlation"] <= 0.3 and 2 < moved.sweeps < 60


def test_sweeps_stop_where_modes_keep_the_correlation_up():
    """Two modes that no particle leaves: within them all is forgotten after some sweeps, and more would be wasted."""
    prior = Normal(torch.zeros(1, dtype=torch.float64), 10.0)
    two = Density(lambda x: torch.logaddexp(-0.5 * ((x - 8) / 0.3) ** 2, -0.5 * ((x + 8) / 0.3) ** 2).sum(-1), prior)
    side = torch.where(torch.arange(1000) % 2 == 0, 8.0, -8.0).double()[:, None]
    state = two.evaluate(side + 0.3 * Rng(0).normal((1000, 1)))
    weight = torch.full((1000,), 1e-3, dtype=torch.float64)
    start = {**RandomWalk().start(1, torch.float64), "step_size": 0.7}
    moved = move(RandomWalk(), Rng(1), Tempered(two, 1.0), state, weight, start)
    assert 10 < moved.sweeps < 40 and moved.info["correlation"] > 0.9
