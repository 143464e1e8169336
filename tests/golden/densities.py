"""Golden runs of samplers of densities, and of every kernel that the default knobs make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import Normal, Uniform

import motes
from motes import density as d
from motes import laws, statespace
from motes.density.self_repellent import metropolis
from motes.kernels import kernels

F = torch.float64
Runs = dict[str, Callable[[], tuple[Any, int, int]]]


def posterior() -> motes.Density:
    """Three parameters on two scales, twelve data."""
    x = torch.linspace(-1, 1, 12, dtype=F)
    y = 0.5 + x + 0.3 * torch.sin(7 * x)

    def log_likelihood(p: dict[str, torch.Tensor]) -> torch.Tensor:
        scale = p["noise"].exp()
        return Normal(p["level"] + p["slope"] * x, scale).log_prob(y).sum(-1)

    prior = {k: Normal(torch.tensor(0.0, dtype=F), 1.0) for k in ("level", "slope", "noise")}
    return motes.Density(log_likelihood, prior)


def spins() -> laws.Discrete:
    """A chain of eight spins."""
    return laws.Discrete(lambda s: 0.4 * ((2 * s - 1)[:, 1:] * (2 * s - 1)[:, :-1]).sum(1).to(F), dim=8)


def by_parts() -> d.DataAnnealing:
    """Data that arrive one by one."""
    y = torch.tensor([0.3, -0.2, 1.1, 0.4], dtype=F)
    return d.DataAnnealing(lambda p, y: Normal(p["mean"], 1.0).log_prob(y), {"mean": Normal(0.0, 2.0)}, y)


def walk() -> statespace.SMC2:
    """A random walk that pulls back, seen with noise."""
    inner = statespace.BootstrapFilter(
        lambda rng, theta, size: rng.normal((len(theta["rho"]), size)),
        lambda rng, theta, x, t: theta["rho"][:, None] * x + rng.normal(tuple(x.shape)),
        lambda theta, x, y, t: -0.5 * (y - x).square(),
        torch.tensor([0.3, 1.0, 0.2]),
    )
    return statespace.SMC2(inner, {"rho": Uniform(-1.0, 1.0)}, size=16)


def four() -> motes.Density:
    """The prior alone, N(0, 1) in four dimensions."""
    prior = Normal(torch.zeros(4, dtype=F), 1.0)
    return motes.Density(lambda x: torch.zeros(len(x)), prior, vectorised=True)


def decay() -> d.EnsembleKalman:
    """An amplitude and a rate from eight readings."""
    times = torch.linspace(0, 1, 8, dtype=F)
    data = d.GaussianData(lambda x: x[:, :1] * torch.exp(-x[:, 1:] * times), 2 * torch.exp(-times), 0.01)
    return d.EnsembleKalman(motes.Density(data, Normal(torch.ones(2, dtype=F), 1.0)), data)


def ring() -> d.SelfRepellentWalk:
    """Five places in a ring, of different weight."""
    beside = torch.eye(5).roll(1, 0) + torch.eye(5).roll(-1, 0)
    return d.SelfRepellentWalk(metropolis(beside, torch.arange(5.0)), steps=3)


def smoothed(y: torch.Tensor, sigma: float) -> torch.Tensor:
    """Two points, at -3 and 3."""
    return torch.logsumexp(-0.5 * ((y - torch.tensor([-3.0, 3.0])) / sigma) ** 2, 1)


RUNS: Runs = {
    "Tempering": lambda: (d.Tempering(posterior()), 64, 4),
    "WasteFree": lambda: (d.WasteFree(posterior()), 64, 3),
    "PersistentSampling": lambda: (d.PersistentSampling(posterior()), 64, 3),
    "AnnealedImportanceSampling": lambda: (d.AnnealedImportanceSampling(posterior()), 64, 3),
    "AMIS": lambda: (d.AMIS(posterior()), 64, 3),
    "NestedSampling": lambda: (d.NestedSampling(posterior()), 64, 3),
    "ParallelTempering": lambda: (d.ParallelTempering(posterior()), 8, 3),
    "Chains": lambda: (d.Chains(posterior(), draws=4), 8, 4),
    "DataAnnealing": lambda: (by_parts(), 64, 3),
    "SMC2": lambda: (walk(), 32, 3),
    "Splitting": lambda: (d.Splitting(four(), lambda x: x.sum(1), 8.0), 64, 3),
    "CrossEntropy": lambda: (d.CrossEntropy(four(), performance=lambda x: x.sum(1), level=8.0), 64, 3),
    "EnsembleKalman": lambda: (decay(), 64, 2),
    "Follmer": lambda: (d.Follmer(posterior(), location=0.0, scale=1.0), 32, 3),
    "SelfRepellentWalk": lambda: (ring(), 16, 3),
    "WalkJump": lambda: (d.WalkJump(smoothed, 1, sigma=3.0, measurements=3), 16, 3),
    "LowDiscrepancy": lambda: (d.Tempering(laws.LowDiscrepancy(posterior())), 32, 2),
}
RUNS |= {
    f"Tempering {name}": lambda name=name, k=k: (
        d.Tempering(spins() if k.discrete else posterior(), kernel=name),
        32,
        2,
    )
    for name, k in kernels.items()
    if k.exact
}
