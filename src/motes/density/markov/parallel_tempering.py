"""Parallel tempering: chains at all temperatures at once, which exchange their states."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.estimate.batch_means import APART, apart, chain_mean
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.resampling import find_scheme
from motes.core.temperature import next_temperature
from motes.core.tree import PyTree
from motes.density.annealing.annealed import Annealed
from motes.density.last_look import LastLook
from motes.density.markov.draws_look import looked_at, spent
from motes.density.markov.exchange import bridge, equal_rejection, hardly_overlap, nearest, rungs_for
from motes.density.markov.rung_walk import RungWalk
from motes.density.markov.rungs import levelled, white
from motes.errors import MotesError
from motes.laws.restore import same_values
from motes.rng import Rng

SHORTEST = 8
"""Iterations of the first warm-up round; each further one is twice as long."""
FEWEST, MOST = 8, 64
"""Temperatures of a ladder that finds its length itself."""
BLOCKS = 20
"""Parts in which the draws are made: a checkpoint can fall between two."""


@dataclass(frozen=True)
class ParallelTempering(Annealed):
    """Parallel tempering: each of N chains is K walkers at inverse temperatures 0 = b_1 < ... < b_K = 1.

    Also known as replica exchange, where a walker is called a replica.

    An iteration draws the walker at 0 anew from the prior, moves every other one by a kernel that leaves its law
    prior x likelihood^b invariant, and proposes to swap neighbours, in turn all even and all odd pairs, which lets
    walkers travel instead of diffuse. All walkers are moved together, each in coordinates in which its law is about
    white. Warm-up rounds of doubling length learn these, the kernel, and temperatures at which all swaps are rejected
    equally often, as many as let half of them pass. Then everything is frozen: the draws at temperature 1 come from
    Markov chains with the right invariant law, which cross between modes by way of the prior.

    The view of a run is (chains, draws, ...), and its errors are those of batch means. There are no weights: the log
    evidence is the geometric bridge between neighbouring temperatures over all draws so far, the same in every chain.
    It is consistent in the number of draws, with a bias that is smaller than its error bar (which counts the chains'
    memory), and has none but a reason where neighbours hardly overlap; the means are free of bias up to what is left of
    the start. At its end a run moves some of its draws on, and says so where their means drift.

    References:
        Geyer (1991), Markov chain Monte Carlo maximum likelihood, Computing Science and Statistics 23.
        Syed, Bouchard-Cote, Deligiannidis & Doucet (2022), Non-reversible parallel tempering: a scalable highly
        parallel MCMC scheme, JRSS B 84(2).
        Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6(4).

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        temperatures: how many, K, at least 2; "auto" is twice the "barrier" in the trace and one more, as the warm-up
            finds it, from 8 to 64.
        draws: iterations of every chain after the warm-up.
        rounds: warm-up rounds of 8, 16, 32, ... iterations, at least 1.
        sweeps: sweeps of the kernel in an iteration.

    Raises:
        MotesError: the kernel needs gradients that the density has not, or makes particles depend on each other; or a
            chain never finds a positive likelihood.

    >>> import torch, motes
    >>> from motes.density.markov.parallel_tempering import ParallelTempering
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> run = motes.sample(ParallelTempering(density, temperatures=4, draws=60, rounds=3), 32, seed=0, progress=False)
    >>> tuple(run.view.shape), bool((run.mean().value - 2 / 1.09).abs().max() < 0.1)
    ((32, 60, 2), True)
    """

    _: KW_ONLY
    temperatures: int | Literal["auto"] = "auto"
    draws: int = 1000
    rounds: int = 6
    sweeps: int = 1

    sources: ClassVar[tuple[Reference, ...]] = (
        cited("geyer1991", "parallel tempering"),
        cited("syed2022", "even and odd swaps, the ladder of temperatures"),
        cited("meng1996", "the evidence from parallel tempering"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mover.ensemble:
            raise MotesError(
                f"{type(self.mover).__name__} moves a particle by looking at the others, which have other temperatures "
                "here: use another kernel"
            )
        given = FEWEST if self.temperatures == "auto" else self.temperatures
        if given < 2 or min(self.draws, self.rounds, self.sweeps) < 1:
            raise MotesError(
                'need temperatures >= 2 or "auto", draws >= 1, rounds >= 1 and sweeps >= 1, not '
                f"{self.temperatures}, {self.draws}, {self.rounds} and {self.sweeps}"
            )

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        k = FEWEST if self.temperatures == "auto" else self.temperatures
        d, kernel = self.density.dim, self.mover
        z = self.density.sample(rng.at("prior"), n * k)
        flat = self.density.evaluate(z, kernel.gradient)
        ladder = _first_ladder(flat["log_likelihood"], k)
        # each walker starts at a draw from the prior that is likely at its temperature, not far out in a tail
        start = torch.arange(n * k).view(n, k)
        if (flat["log_likelihood"] > -math.inf).any():
            for r in range(1, k):
                weight = float(ladder[r]) * flat["log_likelihood"]
                start[:, r] = find_scheme("systematic")(rng.at(f"start-{r}"), weight, n=n)
        state = {key: v[start] for key, v in flat.items()}
        x = {
            "state": state,
            "fresh": torch.zeros(n, k, dtype=torch.bool),
            "arrivals": torch.zeros(n, dtype=torch.int64),
            "draws": torch.empty(n, 0, d, dtype=z.dtype),
            "log_likelihood": torch.empty(n, 0, k, dtype=torch.float64),
        }
        centre, factor = white(z[:, None])
        # a law with a Gaussian likelihood is narrower by this much
        narrow = (ladder[1] / ladder[1:]).sqrt().to(z.dtype)
        shared = {
            "round": 0,
            "iterations": 0,
            "ladder": ladder,
            "kernel": kernel.start(d, z.dtype),
            "centre": centre.repeat(k - 1, 1),
            "factor": narrow.view(-1, *[1] * (factor.ndim - 1)) * factor,
            "stretch": torch.ones(k - 1, dtype=z.dtype),
            "look": LastLook().to_shared(),
        }
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
        walk = RungWalk(self.density, self.mover, self.sweeps, particles, learning=True)
        history = [walk.iterate(rng, i) for i in range(SHORTEST << done)]
        position = torch.stack([h["position"][:, 1:] for h in history], 1).flatten(0, 1)
        centre, factor = white(position, (shared["centre"], shared["factor"]))
        stretch = levelled(shared["stretch"], walk.accepted, 0.5 if self.mover.gradient else 1.0)
        ladder = walk.ladder
        if done + 1 < self.rounds:  # the last round keeps its ladder, so that its scales were made for it
            rungs = rungs_for(walk.rejection, MOST) if self.temperatures == "auto" else len(ladder)
            ladder = equal_rejection(ladder, walk.rejection, rungs)
        x = {**particles.x, "state": walk.state, "fresh": walk.fresh}
        if len(ladder) > len(walk.ladder):  # what is new begins as its nearest neighbour
            place = nearest(walk.ladder, ladder)
            x["state"], x["fresh"] = tree.map_leaves(lambda v: v[:, place], (walk.state, walk.fresh))
            x["log_likelihood"] = torch.empty(n, 0, len(ladder), dtype=torch.float64)
            centre, factor, stretch = (v[place[1:] - 1] for v in (centre, factor, stretch))
        shared = {
            "round": done + 1,
            "iterations": walk.iterations,
            "ladder": ladder,
            "kernel": walk.parameters,
            "centre": centre,
            "factor": factor,
            "stretch": stretch,
            "look": spent(shared, walk.evaluations),
        }
        return particles.step(x, torch.zeros(n, dtype=torch.float64), shared=shared, info=walk.info())

    def _draw(self, rng: Rng, particles: Particles) -> Particles:
        shared, x = particles.shared, particles.x
        done = x["draws"].shape[1]
        walk = RungWalk(self.density, self.mover, self.sweeps, particles, learning=False)
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
        shared = {**shared, "iterations": walk.iterations, "look": spent(shared, walk.evaluations)}
        after = particles.step(x, potential, shared=shared, info=walk.info())
        if not self.done(after):
            return after
        return looked_at(rng.at("last-look"), after, self.density, self.target(1.0), self.mover, x["draws"])

    # ---------------------------------------------------------------- what a run shows

    def standard_error(self, particles: Particles) -> StandardError:
        method, likelihood = "batch means of the bridge", particles.x["log_likelihood"]
        if likelihood.shape[1] == 0:
            return StandardError(math.nan, method, "there are no draws yet")
        if reason := hardly_overlap(particles.shared["ladder"], likelihood):
            return StandardError(math.nan, method, reason)
        if (worst := float(torch.stack([apart(x).max() for x in (particles.x["draws"], likelihood)]).max())) > APART:
            reason = (
                f"single chains are each somewhere else: R-hat between them is {worst:.3g}, above {APART}, for a "
                "coordinate or a log-likelihood. Draw longer; with separate modes use motes.Tempering with replicas=8"
            )
            return StandardError(math.nan, method, reason)
        found = chain_mean(bridge(particles.shared["ladder"], likelihood)[1])
        return StandardError(float(found.se), method, found.reason, freedom=found.freedom)

    def remarks(self, particles: Particles) -> list[str]:
        said, x = super().remarks(particles), particles.x
        if not self.done(particles):
            return said
        if reason := hardly_overlap(particles.shared["ladder"], x["log_likelihood"]):
            said.append(Remark(f"chains hardly pass from the prior to the posterior: {reason}", ALL))
        elif int(x["arrivals"].sum()) == 0:
            text = (
                "no walker travelled from the prior to the posterior, so chains hardly cross between modes: use more "
                "temperatures, more draws or more sweeps"
            )
            said.append(Remark(text, ALL))
        return said

    def positions(self, particles: Particles) -> Tensor:
        return particles.x["state"]["position"][:, -1]

    def shows(self) -> str:
        return "chains"

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


def _first_ladder(log_likelihood: Tensor, k: int) -> Tensor:
    """From 0 to the temperature that leaves half of the prior's draws, then by equal factors to 1."""
    alive = log_likelihood > -math.inf
    first = next_temperature(torch.zeros_like(log_likelihood), log_likelihood, 0.0, 0.5) if alive.any() else 1.0
    if k == 2 or first == 1.0:
        return torch.linspace(0, 1, k, dtype=torch.float64)
    rest = torch.logspace(math.log10(first), 0, k - 1, dtype=torch.float64)
    rest[-1] = 1.0
    return torch.cat([torch.zeros(1, dtype=torch.float64), rest])
