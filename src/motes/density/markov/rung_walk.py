"""Iterations of parallel tempering: a draw from the prior, a move of all other walkers, swaps of neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from motes.core.particles import Particles
from motes.density.markov.exchange import exchanged, pairs, swap_probability
from motes.density.markov.rungs import Rungs, joined
from motes.kernels import Kernel, Parameters, State, Sweep
from motes.laws.law import Law
from motes.rng import Rng

LESSON = 64
"""Acceptances that are pooled before a kernel learns from them."""
KEPT = ("position", "log_prior", "log_likelihood", "prior_gradient", "likelihood_gradient")


class RungWalk:
    """The walkers of a population on their way through some iterations.

    Args:
        density: the law at temperature 1.
        kernel: what moves them.
        sweeps: of the kernel, an iteration.
        particles: of a `ParallelTempering` run.
        learning: whether the kernel learns its step size on the way.
    """

    density: Law
    kernel: Kernel
    sweeps: int
    learning: bool
    evaluations: float

    def __init__(self, density: Law, kernel: Kernel, sweeps: int, particles: Particles, learning: bool):
        shared, x = particles.shared, particles.x
        self.density, self.kernel, self.sweeps, self.learning = density, kernel, sweeps, learning
        self.ladder: Tensor = shared["ladder"]
        self.parameters: Parameters = shared["kernel"]
        self.state: State = x["state"]
        self.fresh: Tensor = x["fresh"]
        self.arrivals: Tensor = x["arrivals"]
        self.iterations: int = shared["iterations"]
        self.target: Rungs = _target(density, shared, particles.n)
        self.weight: Tensor = torch.full(
            (len(self.target.temperature),), 1 / len(self.target.temperature), dtype=torch.float64
        )
        self.rejections: list[Tensor] = []
        self.acceptances: list[Tensor] = []
        self.evaluations = 0.0
        self.seen: list[Sweep] = []

    def iterate(self, rng: Rng, i: int) -> State:
        """Move every walker and swap neighbours; the state (N, K, ...) after it."""
        n, k = self.fresh.shape
        prior = self.density.evaluate(self.density.sample(rng.at("prior", inner=i), n), self.kernel.gradient)
        moved = self._moved(rng.at("move", inner=i))
        state = {key: torch.cat([prior[key][:, None], v], 1) for key, v in moved.items()}
        probability = swap_probability(self.ladder, state["log_likelihood"])
        self.rejections.append(1 - probability.mean(0))
        lower = pairs(k, self.iterations % 2)
        coin = rng.at("swap", inner=i).uniform((n, k - 1), dtype=torch.float64)
        place = exchanged(lower, (coin < probability)[:, lower], k)
        self.state = {key: v.gather(1, place.view(n, k, *[1] * (v.ndim - 2)).expand_as(v)) for key, v in state.items()}
        fresh = self.fresh.index_fill(1, torch.tensor(0), True).gather(1, place)
        self.arrivals = self.arrivals + fresh[:, -1]
        self.fresh = fresh.index_fill(1, torch.tensor(k - 1), False)
        self.iterations += 1
        return self.state

    def _moved(self, rng: Rng) -> State:
        """(N, K - 1, ...) all walkers above temperature 0 after the sweeps of an iteration."""
        n, k = self.fresh.shape
        state = self.target.enter({key: v[:, 1:].flatten(0, 1) for key, v in self.state.items()})
        state = self.kernel.enter(rng.at("enter"), self.target, state, self.parameters)
        for j in range(self.sweeps):
            sweep = self.kernel.sweep(rng.at(f"sweep-{j}"), self.target, state, self.parameters)
            state = sweep.state
            self.evaluations += sweep.evaluations * (k - 1)
            self.acceptances.append(sweep.acceptance.view(n, k - 1).mean(0))
            if self.learning:
                self._learn(sweep)
        self.evaluations += 1.0
        state = {**state, "position": state["place"]}
        return {key: v.view(n, k - 1, *v.shape[1:]) for key, v in state.items() if key in KEPT}

    def _learn(self, sweep: Sweep) -> None:
        """Learn once there are enough sweeps under the same parameters."""
        self.seen.append(sweep)
        count = len(self.seen)
        if count * len(self.weight) >= LESSON:
            self.parameters = self.kernel.learn(self.parameters, joined(self.seen), self.weight.repeat(count) / count)
            self.seen = []

    @property
    def rejection(self) -> Tensor:
        """(K - 1,) how often a swap of each pair would be rejected."""
        return torch.stack(self.rejections).mean(0)

    @property
    def accepted(self) -> Tensor:
        """(K - 1,) the mean acceptance at each temperature above 0."""
        return torch.stack(self.acceptances).mean(0)

    def info(self) -> dict[str, float]:
        """What the trace shows of these iterations."""
        rejection = self.rejection
        return {
            "acceptance": float(self.accepted.mean()),
            "evaluations": self.evaluations,
            "barrier": float(rejection.sum()),
            "rejection": float(rejection.max()),
            "arrivals": float(self.arrivals.sum()),
            **self.target.told(len(self.acceptances) * len(self.weight)),
            **self.kernel.describe(self.parameters),
        }


def _target(density: Law, shared: dict[str, Any], n: int) -> Rungs:
    """The laws of all walkers above temperature 0, chain by chain."""
    centre = factor = None
    if density.levels is None:
        centre, factor = shared["centre"], shared["factor"]
        factor = factor * shared["stretch"].view(-1, *[1] * (factor.ndim - 1))
        centre, factor = centre.repeat(n, 1), factor.repeat(n, *[1] * (factor.ndim - 1))
    return Rungs(density, shared["ladder"][1:].repeat(n), centre, factor, density.compile is True)
