"""Proposals from a fitted Gaussian: its parts, and what must be accepted when the target is that Gaussian."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import t as student
from torch import Tensor

from motes.kernels import Kernel, RandomWalk, State, Sweep, Target
from motes.kernels.adaptation.acceptance import farthest
from motes.kernels.independence import IndependenceMetropolis
from motes.kernels.pcn import PCN
from motes.kernels.pcn_langevin import PCNLangevin
from motes.rng import Rng

Z = 4.9  # two-sided level 1e-6
FACTOR = torch.tensor([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-1.0, 0.3, 0.5]], dtype=torch.float64)
CENTRE = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
FITTED = {"mean": CENTRE.expand(2, 3), "scale": FACTOR.expand(2, 3, 3)}


class From(Target):
    """The law with log-density `f` (N, d) -> (N,)."""

    def __init__(self, f):
        self.f = f

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        x = position.detach().requires_grad_()
        value = self.f(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        return {"position": position, "value": value.detach(), "slope": slope}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


def once(kernel: Kernel, target: Target, x: Tensor, seed: int = 1, **parameters) -> Sweep:
    parameters = {**kernel.start(x.shape[1], x.dtype), **parameters}
    return kernel.sweep(Rng(seed), target, target.evaluate(x, kernel.gradient), parameters)


def fitted(x: Tensor) -> Tensor:
    """The log-density of N(CENTRE, FACTOR FACTOR^T)."""
    return -0.5 * torch.linalg.solve_triangular(FACTOR, (x - CENTRE).T, upper=False).square().sum(0)


@pytest.mark.parametrize("kernel", [IndependenceMetropolis(), PCN()], ids=lambda k: k.name)
@pytest.mark.parametrize("n", [40, 41])
def test_a_particle_has_no_part_in_its_own_proposal(kernel: Kernel, n: int) -> None:
    x, weight, half = Rng(0).normal((n, 3)), torch.full((n,), 1 / n, dtype=torch.float64), (n + 1) // 2
    target, start = From(fitted), kernel.start(3, torch.float64)
    moved = x.clone()
    moved[:half] += 3 * Rng(1).normal((half, 3))
    a, b = (kernel.fit(start, target, target.evaluate(v, False), weight) for v in (x, moved))
    for k in ("mean", "scale"):
        assert torch.equal(a[k][0], b[k][0]) and not torch.equal(a[k][1], b[k][1])
    assert torch.allclose(a["mean"][0], x[half:].mean(0)) and torch.allclose(a["mean"][1], x[:half].mean(0))


# ------------------------------------------------------------------------------------------------ exact proposals


@pytest.mark.parametrize(
    ("kernel", "knobs"),
    [
        (IndependenceMetropolis(defensive=0.0), FITTED),
        (PCN(), {**FITTED, "step_size": 0.3}),
        (PCN(), {**FITTED, "step_size": 1.0}),
        (PCNLangevin(), {"scale": FITTED["scale"], "step_size": 0.3}),
        (PCNLangevin(), {"scale": FITTED["scale"], "step_size": 1.0}),
    ],
    ids=lambda v: v.name if isinstance(v, Kernel) else str(v.get("step_size", "")),
)
def test_on_the_fitted_gaussian_everything_is_accepted(kernel: Kernel, knobs: dict) -> None:
    x = 4 * Rng(0).normal((400, 3))
    assert float(once(kernel, From(fitted), x, **knobs).acceptance.min()) > 1 - 1e-11
    other = once(kernel, From(lambda v: fitted(v) - 0.1 * v[:, 0].square()), x, **knobs)
    assert float(other.acceptance.min()) < 0.99


def test_on_the_fitted_student_everything_is_accepted() -> None:
    k, d = 3.0, 3

    def tail(x: Tensor) -> Tensor:
        return -(k + d) / 2 * torch.log1p(-2 * fitted(x) / k)

    kernel = IndependenceMetropolis(defensive=1.0, degrees=k)
    assert float(once(kernel, From(tail), 4 * Rng(0).normal((400, 3)), **FITTED).acceptance.min()) > 1 - 1e-11
    assert float(once(kernel, From(fitted), 4 * Rng(0).normal((400, 3)), **FITTED).acceptance.min()) < 0.99


@pytest.mark.parametrize("defensive", [0.0, 0.1, 1.0])
def test_the_proposal_density_is_normalised_and_is_that_of_the_draws(defensive: float) -> None:
    kernel, n = IndependenceMetropolis(defensive=defensive, degrees=3.0), 200_000

    def density(u: float) -> float:
        log = kernel._log_density(torch.tensor([[u]], dtype=torch.float64))
        return math.exp(float(log)) / math.sqrt(2 * math.pi)

    assert quad(density, -math.inf, math.inf)[0] == pytest.approx(1.0, abs=1e-6)
    draws = once(kernel, From(lambda v: kernel._log_density(v)), torch.zeros(n, 1).double()).state["position"][:, 0]
    for at in (1.0, 3.0):
        tail = (1 - defensive) * NormalDist().cdf(-at) + defensive * float(student.sf(at, 3.0))
        found = float((draws > at).double().mean())
        assert abs(found - tail) < Z * math.sqrt(tail / n)


def test_the_heavy_tail_sets_free_what_is_far_out() -> None:
    far, target = torch.full((4000, 1), 50.0).double(), From(lambda x: -3.0 * torch.log1p(x.square().sum(1) / 5))
    assert float(once(IndependenceMetropolis(), target, far).acceptance.mean()) > 0.02
    assert float(once(IndependenceMetropolis(defensive=0.0), target, far).acceptance.mean()) < 1e-100


# ------------------------------------------------------------------------------------------------ Crank-Nicolson


def test_crank_nicolson_does_not_feel_the_dimension() -> None:
    """The target differs from the reference in one coordinate."""

    def acceptance(kernel: Kernel, d: int) -> float:
        target = From(lambda x: -0.5 * x.square().sum(1) - 0.3 * x[:, 0].pow(4))
        x = Rng(0).normal((4000, d))
        x[:, 0] *= 0.6
        return float(once(kernel, target, x, step_size=0.5).acceptance.mean())

    for kernel in (PCN(), PCNLangevin()):
        assert acceptance(kernel, 500) == pytest.approx(acceptance(kernel, 2), abs=0.02)
        assert acceptance(kernel, 2) > 0.7
    assert acceptance(RandomWalk(), 500) < 0.01


def test_langevin_crank_nicolson_is_the_semi_implicit_step() -> None:
    """(2 + t) y = (2 - t) x - 2 t grad Phi + sqrt(8 t) u, relative to a Gaussian with any mean that one likes."""
    t = 0.7
    b, noise = math.sqrt(8 * t) / (2 + t), Rng(1).at("proposal").normal((50, 3))
    x = Rng(0).normal((50, 3))

    def log_p(v: Tensor) -> Tensor:
        return -0.1 * v.pow(4).sum(1) + torch.sin(v[:, 0] * v[:, 1])

    class Taken(Rng):
        def uniform(self, shape, dtype=torch.float64):
            return torch.zeros(shape, dtype=dtype)

    target = From(log_p)
    start = {**PCNLangevin().start(3, torch.float64), "step_size": b}
    done = PCNLangevin().sweep(Taken(1), target, target.evaluate(x, True), start)
    for mean in (torch.zeros(3).double(), CENTRE):
        slope = -(target.evaluate(x, True)["slope"] + (x - mean))  # of Phi = -log p + log N(mean, I)
        y = ((2 - t) * (x - mean) - 2 * t * slope + math.sqrt(8 * t) * noise) / (2 + t) + mean
        taken = done.acceptance > 0
        assert torch.allclose(done.state["position"][taken], y[taken], atol=1e-12) and int(taken.sum()) > 40


def test_the_step_that_moves_farthest() -> None:
    """Small steps: the acceptance of random walks and of Langevin steps; easy targets: all the way."""
    for power, best in ((1, 0.234), (3, 0.574)):
        k = -NormalDist().inv_cdf(0.01 / 2) / 0.05**power  # 1 % at a step of 0.05
        step = 0.05
        for _ in range(20):
            step = farthest(step, 2 * NormalDist().cdf(-k * step**power), power)
        assert step < 0.05
        assert 2 * NormalDist().cdf(-k * step**power) == pytest.approx(best, abs=0.06)
        assert farthest(0.5, 0.999, power) == 1.0


def test_knobs_out_of_range_are_errors() -> None:
    for knobs in ({"defensive": 1.5}, {"degrees": 0.0}):
        with pytest.raises(ValueError, match="needs"):
            IndependenceMetropolis(**knobs)
