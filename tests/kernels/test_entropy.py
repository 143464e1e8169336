"""Entropy-MCMC: the particles keep their law, and the companions have it smoothed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bent import after, bias
from motes.errors import MotesError
from motes.kernels import HMC, Kernel, State, Target
from motes.kernels.entropy import EntropyMCMC, Tethered
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.exact_laws import Bent, bent

N, Z = 40_000, 4.9  # two-sided level 1e-6; the smallest bias that is seen is 0.025 standard deviations


@pytest.mark.parametrize("base", ["random-walk", HMC(length=0.5), "slice", "elliptical-slice"], ids=repr)
def test_a_curved_law_is_invariant(base: Kernel | str) -> None:
    check_kernel(EntropyMCMC(base, eta=0.5), on=bent())


def test_with_another_companion_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    right = EntropyMCMC._draw
    monkeypatch.setattr(EntropyMCMC, "_draw", lambda self, rng, x: x + 0.5 * (right(self, rng, x) - x))
    assert bias(after(EntropyMCMC(eta=0.5), Rng(1), Bent.draw(Rng(0), N))) > Z


class Basins(Target):
    """A narrow and a wide normal, of the same height: 0.1 N(-2, 0.1^2) + 0.9 N(2, 0.9^2)."""

    weight, mean, spread = (torch.tensor(v, dtype=torch.float64) for v in ([0.1, 0.9], [-2.0, 2.0], [0.1, 0.9]))

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        z = (position - self.mean) / self.spread
        part = (self.weight / self.spread).log() - 0.5 * z.square()
        share = torch.softmax(part, 1)
        return {
            "position": position,
            "value": torch.logsumexp(part, 1),
            "slope": -(share * z / self.spread).sum(1, keepdim=True),
        }

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


def kolmogorov(x: Tensor, extra: float) -> float:
    """sqrt(N) times the distance from the mixture with `extra` variance; 2.7 is level 1e-6."""
    x = x.sort().values[:, None]
    z = (x - Basins.mean) / (Basins.spread.square() + extra).sqrt()
    u = (Basins.weight * 0.5 * torch.erfc(-z / math.sqrt(2))).sum(1)
    grid = torch.arange(len(x) + 1) / len(x)
    return float(torch.maximum((u - grid[:-1]).abs(), (u - grid[1:]).abs()).max()) * math.sqrt(len(x))


@pytest.mark.parametrize("base", ["random-walk", HMC()], ids=repr)
def test_companions_have_the_smoothed_law(base: Kernel | str) -> None:
    """Would catch probabilities off by 0.014; in particular Var a = Var x + eta, and their covariance is Var x."""
    eta, target, kernel = 0.6, Basins(), EntropyMCMC(base, eta=0.6)
    which = Rng(0).categorical(Basins.weight.log(), N)
    x = (Basins.mean + Basins.spread * Rng(1).normal((N, 2)))[torch.arange(N), which, None]
    parameters = kernel.start(1, x.dtype)
    state = kernel.enter(Rng(2), target, target.evaluate(x, kernel.gradient), parameters)
    for i in range(4):
        state = kernel.sweep(Rng(3).at("sweep", inner=i), target, state, parameters).state
    y, a = state["position"][:, 0], state["companion"][:, 0]
    assert float((y - x[:, 0]).abs().mean()) > 0.1
    assert kolmogorov(y, 0.0) < 2.7 and kolmogorov(a, eta) < 2.7
    assert kolmogorov(a, 0.3) > 2.7
    exact = float(Basins.weight @ (Basins.spread.square() + Basins.mean.square()) - (Basins.weight @ Basins.mean) ** 2)
    for product, truth in ((a, exact + eta), (y, exact)):
        f = (product - product.mean()) * (a - a.mean())
        assert abs(float(f.mean()) - truth) < Z * float(f.std()) / math.sqrt(N)


def test_a_tethered_law_has_the_derivatives_that_it_says() -> None:
    x, a, v = Bent.draw(Rng(0), 6, 3), Rng(1).normal((6, 3)), Rng(2).normal((6, 3))
    law, step = Tethered(Bent(), a, 0.3), 1e-5
    ahead, back = (law.evaluate(x + s * v, True) for s in (step, -step))
    slope = (law.log_density(ahead) - law.log_density(back)) / (2 * step)
    assert torch.allclose(slope, (law.gradient(law.evaluate(x, True)) * v).sum(1), atol=1e-6)
    assert torch.allclose(law.hessian_vector(x, v), (law.gradient(ahead) - law.gradient(back)) / (2 * step), atol=1e-6)


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="eta"):
        EntropyMCMC(eta=0.0)
    with pytest.raises(MotesError, match="share one law"):
        EntropyMCMC("stretch")
    with pytest.raises(MotesError, match="whole numbers"):
        EntropyMCMC("flip")
