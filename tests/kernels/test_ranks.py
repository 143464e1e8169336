"""Exact rank tests (simulation-based calibration) of every kernel: a draw is exchangeable with its chain.

Each of many replicates has its own truth from the prior and its own data, so the truth is an exact draw from its own
posterior. A chain is run from it forwards and one backwards, for a random number of sweeps each, and the rank of the
truth among all of them is uniform for a kernel that is reversible with respect to the posterior.

Gandy & Scott (2020), Unit testing for MCMC and other Monte Carlo methods, arXiv:2001.06465, section 3.2.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from motes.kernels import Kernel, State, Target, kernels
from motes.rng import Rng

N, SWEEPS = 12_000, 5
ALPHA = 1e-6
TESTED = [k for k in kernels.values() if k.exact and k.reversible and not k.ensemble and not k.discrete]


class Measured(Target):
    """Prior N(0, I) on R^2, and for each replicate data y ~ N((a + b^2 / 2, b), I / 4): curved, and all different."""

    def __init__(self, y: Tensor):
        self.y = y

    @staticmethod
    def mean(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] + 0.5 * x[:, 1].square(), x[:, 1]], 1)

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        off = self.y - self.mean(position)
        state = {"position": position, "value": -0.5 * position.square().sum(1) - 2 * off.square().sum(1)}
        if gradient:
            slope = torch.stack([4 * off[:, 0], 4 * off[:, 0] * position[:, 1] + 4 * off[:, 1]], 1)
            state["slope"] = slope - position
        return state

    def part(self, index: Tensor) -> Target:
        return type(self)(self.y[index])

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


def chain(kernel: Kernel, rng: Rng, target: Target, x: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """(N, sweeps, 2) where the chains from x go."""
    parameters = kernel.start(2, torch.float64)
    if "step_size" in parameters:
        parameters = {**parameters, "step_size": 0.5 * parameters["step_size"]}
    state = kernel.enter(rng.at("enter"), target, target.evaluate(x, kernel.gradient), parameters)
    path = []
    for i in range(sweeps):
        state = kernel.sweep(rng.at("sweep", inner=i), target, state, parameters).state
        path.append(state["position"])
    return torch.stack(path, 1)


def p_value(kernel: Kernel, seed: int = 0) -> float:
    """The smallest p-value of three rank statistics, times three."""
    rng = Rng(seed)
    x = rng.at("truth").normal((N, 2))
    target = Measured(Measured.mean(x) + 0.5 * rng.at("data").normal((N, 2)))
    ahead, back = (chain(kernel, rng.at(way), target, x) for way in ("ahead", "back"))
    behind = rng.at("place").integers((N,), SWEEPS + 1)
    j = torch.arange(SWEEPS)
    # the chain behind gives its first `behind` states, the one ahead its first SWEEPS - behind
    path = torch.where((j < behind[:, None])[..., None], back, _shifted(ahead, behind))
    worst = 1.0
    for f in (lambda v: v[..., 0], lambda v: v[..., 1], lambda v: v.square().sum(-1)):
        here, there = f(x)[:, None], f(path)
        tie = rng.at("tie").uniform((N, SWEEPS + 1))
        rank = ((there < here) | ((there == here) & (tie[:, 1:] < tie[:, :1]))).sum(1)
        count = torch.bincount(rank, minlength=SWEEPS + 1).double()
        expected = N / (SWEEPS + 1)
        worst = min(worst, float(chi2.sf(float(((count - expected).square() / expected).sum()), SWEEPS)))
    return 3 * worst


def _shifted(ahead: Tensor, behind: Tensor) -> Tensor:
    """The states of the chain ahead in places behind, behind + 1, ..."""
    index = (torch.arange(SWEEPS) - behind[:, None]).clamp(min=0)
    return ahead.gather(1, index[..., None].expand(-1, -1, ahead.shape[2]))


@pytest.mark.parametrize("kernel", TESTED, ids=lambda k: k.name)
def test_ranks_of_the_truth_are_uniform(kernel: type[Kernel]) -> None:
    """Would catch a rank probability that is off by 3 % (of N / 6 expected in a cell)."""
    assert p_value(kernel()) > ALPHA


def test_a_kernel_for_another_target_is_found_out() -> None:
    class Shifted(Measured):
        def log_density(self, state: State) -> Tensor:
            return state["value"] - 0.25 * state["position"][:, 0]

    def wrong(kernel: Kernel) -> float:
        rng = Rng(0)
        x = rng.at("truth").normal((N, 2))
        target = Shifted(Measured.mean(x) + 0.5 * rng.at("data").normal((N, 2)))
        after = chain(kernel, rng, target, x)[:, -1, 0]
        return abs(float((after - x[:, 0]).mean())) / float((after - x[:, 0]).std()) * math.sqrt(N)

    assert wrong(kernels["random-walk"]()) > 4.9


@pytest.mark.parametrize("name", ["random-walk", "hmc"])
def test_without_acceptance_ranks_are_not_uniform(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_ratio), torch.isfinite(log_ratio)

    monkeypatch.setattr(f"{kernels[name].__module__}.accepted", always)
    if name == "hmc":  # leapfrog is nearly right by itself: a coarse step shows what acceptance is for
        monkeypatch.setattr(kernels[name], "start", _coarse(kernels[name].start))
    assert p_value(kernels[name]()) < ALPHA


def _coarse(start):
    return lambda self, d, dtype: {**start(self, d, dtype), "step_size": 1.5, "leapfrog_steps": 2}
