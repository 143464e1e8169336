"""Score-repellent chains: the variance of their means in closed form, and what it does not help."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Gamma, Normal

import motes
from motes.errors import MotesError
from motes.kernels import HMC, Kernel, State, Sweep, Target
from motes.kernels.score_repellent import Repelled, ScoreRepellent
from motes.laws import Density
from motes.laws.tempered import Tempered
from motes.rng import Rng
from motes.testing.exact_laws import Bent

Z = 4.9  # two-sided level 1e-6


class Gaussian(Target):
    """N(mean, C)."""

    mean = torch.tensor([3.0, -1.0], dtype=torch.float64)
    factor = torch.tensor([[2.0, 0.0], [0.3, 0.1]], dtype=torch.float64)

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        white = torch.linalg.solve_triangular(self.factor, (position - self.mean).T, upper=False)
        return {"position": position, "slope": -torch.linalg.solve_triangular(self.factor.T, white, upper=True).T}

    def log_density(self, state: State) -> Tensor:
        return 0.5 * ((state["position"] - self.mean) * state["slope"]).sum(1)

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


class Independent(Kernel):
    """Independent draws from the tilted Gaussian, which is the Gaussian shifted."""

    name, gradient, references = "independent-draws", False, ()

    def start(self, d, dtype):
        return {}

    def fit(self, parameters, target, state, weight):
        return parameters

    def learn(self, parameters, sweep, weight):
        return parameters

    def sweep(self, rng, target, state, parameters):
        assert isinstance(target, Repelled)
        x = Gaussian.mean + target.push + rng.at("draw").normal(tuple(state["position"].shape)) @ Gaussian.factor.T
        return Sweep(target.evaluate(x, False), torch.ones(len(x), dtype=torch.float64), 1)

    def describe(self, parameters):
        return {}


def means(kernel: ScoreRepellent, target: Target, x: Tensor, n: int, f, spread: Tensor, skip: int = 0) -> Tensor:
    """(N, k) means of f along n sweeps of each chain from x."""
    parameters = {**kernel.start(x.shape[1], x.dtype), "spread": spread}
    if "leapfrog_steps" in parameters["base"]:  # small enough for the tails of the quartic
        parameters["base"] |= {"step_size": 0.25, "leapfrog_steps": 5}
    state = kernel.enter(Rng(0).at("enter"), target, target.evaluate(x, True), parameters)
    total = torch.zeros(())
    for i in range(skip + n):
        state = kernel.sweep(Rng(1).at("sweep", inner=i), target, state, parameters).state
        total = total + f(state["position"]) if i >= skip else total
    return total / n


@pytest.mark.parametrize("alpha", [0.0, 5.0, *(pytest.param(a, marks=pytest.mark.slow) for a in (1.0, 20.0))])
def test_the_variance_of_the_mean_and_of_what_the_score_does_not_explain(alpha: float) -> None:
    """n Var(mean) = C / (1 + 2 alpha) in every direction; that of a white square is 2 as ever. Within 15 %."""
    chains, n = 2000, 600 if alpha < 10 else 2000  # what is left of the beginning falls off like alpha / n
    x = Gaussian.mean + Rng(5).normal((chains, 2)) @ Gaussian.factor.T
    inverse = torch.linalg.inv(Gaussian.factor).T

    def white(x: Tensor) -> Tensor:
        u = (x - Gaussian.mean) @ inverse
        return torch.cat([u, u.square()], 1)

    spread = Gaussian.factor.expand(2, 2, 2).contiguous()
    found = n * means(ScoreRepellent(Independent(), alpha=alpha, bound=math.inf), Gaussian(), x, n, white, spread).var(
        0
    )
    assert torch.allclose(found[:2] * (1 + 2 * alpha), torch.ones(2).double(), atol=0.15), found
    assert torch.allclose(found[2:], torch.full((2,), 2.0).double(), rtol=0.15), found


class Quartic(Target):
    """Density proportional to exp(x - x^4 / 4) in each of two coordinates."""

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        return {"position": position, "slope": 1 - position**3}

    def log_density(self, state: State) -> Tensor:
        return (state["position"] - state["position"] ** 4 / 4).sum(1)

    def gradient(self, state: State) -> Tensor:
        return state["slope"]

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        return -3 * position.square() * vector


@pytest.mark.parametrize(("base", "n", "gain"), [("random-walk", 1200, 0.7), (HMC(), 400, 0.9)], ids=repr)
def test_means_along_chains_converge_and_vary_less(base: Kernel | str, n: int, gain: float) -> None:
    grid = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    p = torch.softmax(grid - grid**4 / 4, 0)
    exact = torch.stack([p @ grid, p @ grid.square()])
    spread = (p @ (3 * grid.square())).rsqrt().expand(2, 2).contiguous()
    chains = 300
    x = grid[Rng(0).categorical(p.log(), 2 * chains)].view(-1, 2)

    def f(x: Tensor) -> Tensor:
        return torch.stack([x.mean(1), x.square().mean(1)], 1)

    plain, repelled = (means(ScoreRepellent(base, alpha=a), Quartic(), x, n, f, spread, n // 10) for a in (0.0, 5.0))
    for m in (plain, repelled):
        # the bias of repelled means falls off like 1 / n: a third of the standard deviation of one chain's mean here
        off = (m.mean(0) - exact).abs() - Z * m.std(0) / math.sqrt(chains)
        assert bool((off < (0 if m is plain else 20 / n)).all())
    assert float(repelled[:, 0].var() / plain[:, 0].var()) < gain


def test_logarithms_of_scales_stay_proper() -> None:
    """x = log r with r ~ Gamma(3, 1): -log p grows exponentially, where exp(-w . s) is no law."""
    prior = {"r": Gamma(torch.tensor([3.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64))}
    density = Density(lambda v: 0.0 * v["r"][:, 0], prior, vectorised=True)
    kernel, x = ScoreRepellent(alpha=20.0), density.sample(Rng(0), 400)
    spread = torch.full((2, 1), 3**-0.5, dtype=torch.float64)
    m = means(kernel, Tempered(density, 1.0), x, 800, lambda z: z.exp(), spread)
    assert abs(float(m.mean()) - 3.0) < Z * float(m.std()) / 20 + 0.04


def test_runs_of_chains_remember_their_warm_up_and_vary_less() -> None:
    """A Gaussian posterior; the ratio of variances is 0.29 here, with a standard deviation of about 0.06."""
    prior = Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    density = Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), prior, vectorised=True)
    found = []
    for kernel in (HMC(), ScoreRepellent(HMC())):
        run = motes.sample(motes.Chains(density, kernel=kernel, draws=200), 64, seed=1, progress=False)
        mean = run.view.mean(1)
        assert ((mean.mean(0) - 2 / 1.09).abs() < Z * mean.std(0) / 8).all()
        found.append(float(mean.var(0).sum()))
    assert float(run.particles.x["state"]["visits"].min()) > 200
    assert found[1] < 0.6 * found[0]


def test_the_tilted_law_has_the_gradient_that_it_says() -> None:
    x, w = Bent.draw(Rng(0), 6, 3), Rng(1).normal((6, 3))
    law, step = Repelled(Bent(), w, 2.0), 1e-5
    found = law.gradient(law.evaluate(x, True))
    for i in range(3):
        e = torch.zeros(3, dtype=torch.float64)
        e[i] = step
        ahead, back = (law.log_density(law.evaluate(y, False)) for y in (x + e, x - e))
        assert torch.allclose((ahead - back) / (2 * step), found[:, i], rtol=1e-6, atol=1e-6)
    rows = torch.tensor([4, 1])
    few = law.part(rows)
    assert torch.equal(few.gradient(few.evaluate(x[rows], True)), found[rows])


def test_hessian_vector_products_of_densities_are_differences_of_gradients() -> None:
    one = torch.ones((), dtype=torch.float64)
    prior = {"p": Beta(2 * one, 3 * one), "r": Gamma(3 * one, 2 * one), "m": Normal(0 * one, 1 * one)}
    density = Density(lambda v: -((v["m"] - 1) ** 4) * v["r"] + v["p"] * v["m"], prior, vectorised=True)
    target, z, v, step = Tempered(density, 0.3), density.sample(Rng(0), 5), Rng(1).normal((5, 3)), 1e-5
    ahead, back = (target.gradient(density.evaluate(z + s * v, True)) for s in (step, -step))
    assert torch.allclose(target.hessian_vector(z, v), (ahead - back) / (2 * step), rtol=1e-5, atol=1e-6)
    flat = Density(lambda x: x.sum(-1), Normal(torch.zeros(2, dtype=torch.float64), 1.0), vectorised=True)
    prior_part, likelihood_part = flat.hessian_vector(z[:, :2], v[:, :2])
    assert torch.allclose(prior_part, -v[:, :2]) and torch.equal(likelihood_part, torch.zeros(5, 2).double())


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="alpha"):
        ScoreRepellent(alpha=-1.0)
    with pytest.raises(MotesError, match="share one law"):
        ScoreRepellent("stretch")
    with pytest.raises(MotesError, match="whole numbers"):
        ScoreRepellent("flip")
    x = Rng(0).normal((5, 2))
    with pytest.raises(MotesError, match="no second derivatives"):
        means(ScoreRepellent("hmc"), Gaussian(), x, 1, lambda x: x, torch.ones(2, 2, dtype=torch.float64))
    numpy = Density(lambda x: x.detach().sum(-1), Normal(torch.zeros(2, dtype=torch.float64), 1.0), vectorised=True)
    with pytest.raises(MotesError, match="no gradients"):
        numpy.hessian_vector(x, x)
