"""Parallel tempering: chains at all temperatures at once, which exchange their states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference
from motes.core.particles import Particles
from motes.core.series import chain_mean
from motes.core.tree import PyTree
from motes.core.variance import StandardError
from motes.density.annealed import Annealed
from motes.density.exchange import bridge, equal_rejection, exchanged, pairs, swap_probability
from motes.density.restore import same_values
from motes.density.tempered import next_temperature
from motes.kernels import Parameters, State, Sweep
from motes.rng import Rng

SHORTEST = 8
"""Iterations of the first warm-up round; each further one is twice as long."""
LESSON = 64
"""Acceptances that are pooled before a kernel learns from them."""
BLOCKS = 20
"""Parts in which the draws are made: a checkpoint can fall between two."""
KEPT = ("position", "log_prior", "log_likelihood", "prior_gradient", "likelihood_gradient")


@dataclass(frozen=True)
class ParallelTempering(Annealed):
    """Parallel tempering: each of N chains is K replicas at inverse temperatures 0 = b_1 < ... < b_K = 1.

    An iteration draws the replica at 0 anew from the prior, moves every other one by a kernel that leaves its law
    prior x likelihood^b invariant, and proposes to swap neighbours, in turn all even and all odd pairs, which lets
    replicas travel instead of diffuse. Warm-up rounds of doubling length learn a kernel for each temperature and put
    the temperatures where all swaps are rejected equally often. Then everything is frozen: the draws at temperature 1
    come from Markov chains with the right invariant law, which cross between modes by way of the prior.

    The view of a run is (chains, draws, ...), and its errors are those of batch means. There are no weights: the log
    evidence is the geometric bridge between neighbouring temperatures over all draws so far, the same in every chain.
    It is consistent in the number of draws, with a bias that is smaller than its error bar (which counts the chains'
    memory); the means are free of bias up to what is left of the start.

    References:
        Geyer (1991), Markov chain Monte Carlo maximum likelihood, Computing Science and Statistics 23.
        Syed, Bouchard-Cote, Deligiannidis & Doucet (2022), Non-reversible parallel tempering: a scalable highly
        parallel MCMC scheme, JRSS B 84(2).
        Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6(4).

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        temperatures: how many, K, at least 2; about twice the "barrier" in the trace is best.
        draws: iterations of every chain after the warm-up.
        rounds: warm-up rounds of 8, 16, 32, ... iterations, at least 1.
        sweeps: sweeps of the kernel in an iteration.

    Raises:
        MotesError: the kernel needs gradients that the density has not; or a chain never finds a positive likelihood.

    >>> import torch, motes
    >>> from motes.density.parallel_tempering import ParallelTempering
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> run = motes.sample(ParallelTempering(density, temperatures=4, draws=60, rounds=3), 32, seed=0, progress=False)
    >>> tuple(run.view.shape), bool((run.mean().value - 2 / 1.09).abs().max() < 0.1)
    ((32, 60, 2), True)
    """

    temperatures: int = 8
    draws: int = 1000
    rounds: int = 6
    sweeps: int = 1

    axes: ClassVar[int] = 2
    sources: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "geyer1991",
            "Geyer",
            1991,
            "Markov chain Monte Carlo maximum likelihood",
            "Computing Science and Statistics 23",
            "parallel tempering",
        ),
        Reference(
            "syed2022",
            "Syed, Bouchard-Cote, Deligiannidis, Doucet",
            2022,
            "Non-reversible parallel tempering: a scalable highly parallel MCMC scheme",
            "Journal of the Royal Statistical Society B 84(2)",
            "even and odd swaps, the ladder of temperatures",
        ),
        Reference(
            "meng1996",
            "Meng, Wong",
            1996,
            "Simulating ratios of normalizing constants via a simple identity: a theoretical exploration",
            "Statistica Sinica 6(4)",
            "the evidence from parallel tempering",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperatures < 2 or min(self.draws, self.rounds, self.sweeps) < 1:
            raise ValueError(
                "need temperatures >= 2, draws >= 1, rounds >= 1 and sweeps >= 1, not "
                f"{self.temperatures}, {self.draws}, {self.rounds} and {self.sweeps}"
            )

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        k, d, kernel = self.temperatures, self.density.dim, self.mover
        z = self.density.sample(rng.at("prior"), n * k)
        state = {key: v.view(n, k, *v.shape[1:]) for key, v in self.density.evaluate(z, kernel.gradient).items()}
        x = {
            "state": state,
            "fresh": torch.zeros(n, k, dtype=torch.bool),
            "arrivals": torch.zeros(n, dtype=torch.int64),
            "draws": torch.empty(n, 0, d, dtype=z.dtype),
            "log_likelihood": torch.empty(n, 0, k, dtype=torch.float64),
        }
        ladder = _first_ladder(state["log_likelihood"].flatten(), k)
        shared = {"round": 0, "iterations": 0, "ladder": ladder, "kernels": [kernel.start(d, z.dtype)] * (k - 1)}
        return Particles.start(x, torch.zeros(n, dtype=torch.float64), shared=shared, info={"evaluations": float(k)})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        return (self._warm if particles.shared["round"] < self.rounds else self._draw)(rng, particles)

    def done(self, particles: Particles) -> bool:
        return particles.shared["round"] == self.rounds and particles.x["draws"].shape[1] >= self.draws

    def must_resample(self, particles: Particles) -> bool:
        return False

    # ---------------------------------------------------------------- phases

    def _warm(self, rng: Rng, particles: Particles) -> Particles:
        shared, n = particles.shared, particles.n
        done = shared["round"]
        walk = _Walk(self, particles, learning=True)
        history = [walk.iterate(rng, i) for i in range(SHORTEST << done)]
        weight = torch.full((n * len(history),), 1 / (n * len(history)), dtype=torch.float64)
        kernels = []
        for k, parameters in enumerate(walk.kernels, 1):
            pooled = {key: torch.stack([s[key][:, k] for s in history], 1).flatten(0, 1) for key in history[0]}
            kernels.append(self.mover.fit(parameters, self.target(float(walk.ladder[k])), pooled, weight))
        # the last round keeps its ladder, so that its kernels were made for it
        ladder = walk.ladder if done + 1 == self.rounds else equal_rejection(walk.ladder, walk.rejection)
        shared = {"round": done + 1, "iterations": walk.iterations, "ladder": ladder, "kernels": kernels}
        x = {**particles.x, "state": walk.state, "fresh": walk.fresh}
        return particles.step(x, torch.zeros(n, dtype=torch.float64), shared=shared, info=walk.info())

    def _draw(self, rng: Rng, particles: Particles) -> Particles:
        shared, x = particles.shared, particles.x
        done = x["draws"].shape[1]
        walk = _Walk(self, particles, learning=False)
        history = [walk.iterate(rng, i) for i in range(min(math.ceil(self.draws / BLOCKS), self.draws - done))]
        draws = torch.stack([s["position"][:, -1] for s in history], 1)
        likelihood = torch.stack([s["log_likelihood"] for s in history], 1)
        x = {
            "state": walk.state,
            "fresh": walk.fresh,
            "arrivals": walk.arrivals,
            "draws": torch.cat([x["draws"], draws], 1),
            "log_likelihood": torch.cat([x["log_likelihood"], likelihood], 1),
        }
        potential = bridge(walk.ladder, x["log_likelihood"])[0] - particles.log_weight
        return particles.step(x, potential, shared={**shared, "iterations": walk.iterations}, info=walk.info())

    # ---------------------------------------------------------------- what a run shows

    def standard_error(self, particles: Particles) -> StandardError:
        method, likelihood = "batch means of the bridge", particles.x["log_likelihood"]
        if likelihood.shape[1] == 0:
            return StandardError(math.nan, method, "there are no draws yet")
        _, se, reason = chain_mean(bridge(particles.shared["ladder"], likelihood)[1])
        return StandardError(float(se), method, reason)

    def remarks(self, particles: Particles) -> list[str]:
        x = particles.x
        if not self.done(particles) or int(x["arrivals"].sum()) > 0:
            return []
        return [
            "no replica travelled from the prior to the posterior, so chains hardly cross between modes: use more "
            "temperatures, more draws or more sweeps"
        ]

    def view(self, particles: Particles) -> PyTree:
        """(chains, draws, ...); before the first draw it is where the chains are."""
        draws = particles.x["draws"]
        if draws.shape[1] == 0:
            draws = particles.x["state"]["position"][:, -1:]
        values = self.density.constrain(draws.flatten(0, 1))
        return tree.map_leaves(lambda v: v.reshape(*draws.shape[:2], *v.shape[1:]), values)

    def restore(self, particles: Particles) -> Particles:
        same_values(self.density, {k: v.flatten(0, 1) for k, v in particles.x["state"].items()})
        return particles

    def order(self, particles: Particles) -> Tensor:
        return particles.x["state"]["log_likelihood"][:, -1]

    def progress(self, particles: Particles) -> float:
        warm = SHORTEST * ((1 << self.rounds) - 1)
        return particles.shared["iterations"] / (warm + self.draws)

    def settings(self) -> dict[str, Any]:
        mine = {"temperatures": self.temperatures, "draws": self.draws, "rounds": self.rounds, "sweeps": self.sweeps}
        return {**super().settings(), **mine}


class _Walk:
    """The replicas of a population on their way through some iterations."""

    def __init__(self, model: ParallelTempering, particles: Particles, learning: bool):
        shared, x = particles.shared, particles.x
        self.model, self.kernel, self.learning = model, model.mover, learning
        self.ladder: Tensor = shared["ladder"]
        self.kernels: list[Parameters] = list(shared["kernels"])
        self.state: State = x["state"]
        self.fresh: Tensor = x["fresh"]
        self.arrivals: Tensor = x["arrivals"]
        self.iterations: int = shared["iterations"]
        self.rejections: list[Tensor] = []
        self.evaluations, self.rate = 0.0, 0.0
        self.seen: list[list[Sweep]] = [[] for _ in self.kernels]

    def iterate(self, rng: Rng, i: int) -> State:
        """Move every replica and swap neighbours; the state (N, K, ...) after it."""
        n, k = self.fresh.shape
        rows = [
            self.model.density.evaluate(self.model.density.sample(rng.at("prior", inner=i), n), self.kernel.gradient)
        ]
        rows += [self._move(rng.at(f"rung-{r}", inner=i), r) for r in range(1, k)]
        state = {key: torch.stack([row[key] for row in rows], 1) for key in rows[0] if key in KEPT}
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
        self.evaluations += 1.0
        return self.state

    def _move(self, rng: Rng, rung: int) -> State:
        target, parameters = self.model.target(float(self.ladder[rung])), self.kernels[rung - 1]
        state = {key: v[:, rung].contiguous() for key, v in self.state.items()}
        state = self.kernel.enter(rng.at("enter"), target, state, parameters)
        for j in range(self.model.sweeps):
            sweep = self.kernel.sweep(rng.at(f"sweep-{j}"), target, state, parameters)
            state = sweep.state
            self.evaluations += sweep.evaluations
            self.rate += float(sweep.acceptance.mean())
            if self.learning:
                parameters = self._learn(rung, sweep)
        return state

    def _learn(self, rung: int, sweep: Sweep) -> Parameters:
        """The kernel's parameters at a rung, learnt once there are enough sweeps under the same ones."""
        seen, n = self.seen[rung - 1], len(self.fresh)
        seen.append(sweep)
        if len(seen) * n >= LESSON:
            even = torch.full((len(seen) * n,), 1 / (len(seen) * n), dtype=torch.float64)
            self.kernels[rung - 1] = self.kernel.learn(self.kernels[rung - 1], _joined(seen), even)
            self.seen[rung - 1] = []
        return self.kernels[rung - 1]

    @property
    def rejection(self) -> Tensor:
        """(K - 1,) how often a swap of each pair would be rejected."""
        return torch.stack(self.rejections).mean(0)

    def info(self) -> dict[str, float]:
        """What the trace shows of these iterations."""
        moves = len(self.rejections) * self.model.sweeps * len(self.kernels)
        rejection = self.rejection
        return {
            "acceptance": self.rate / moves,
            "evaluations": self.evaluations,
            "barrier": float(rejection.sum()),
            "rejection": float(rejection.max()),
            "arrivals": float(self.arrivals.sum()),
        }


def _joined(sweeps: list[Sweep]) -> Sweep:
    """Several sweeps under the same parameters as one of a larger population."""
    diverged = [s.diverged for s in sweeps if s.diverged is not None]
    return Sweep(
        {k: torch.cat([s.state[k] for s in sweeps]) for k in sweeps[0].state},
        torch.cat([s.acceptance for s in sweeps]),
        sum(s.evaluations for s in sweeps) / len(sweeps),
        torch.cat(diverged) if diverged else None,
        {k: torch.cat([s.seen[k] for s in sweeps]) for k in sweeps[0].seen},
    )


def _first_ladder(log_likelihood: Tensor, k: int) -> Tensor:
    """From 0 to the temperature that leaves half of the prior's draws, then by equal factors to 1."""
    alive = log_likelihood > -math.inf
    first = next_temperature(torch.zeros_like(log_likelihood), log_likelihood, 0.0, 0.5) if alive.any() else 1.0
    if k == 2 or first == 1.0:
        return torch.linspace(0, 1, k, dtype=torch.float64)
    rest = torch.logspace(math.log10(first), 0, k - 1, dtype=torch.float64)
    rest[-1] = 1.0
    return torch.cat([torch.zeros(1, dtype=torch.float64), rest])
