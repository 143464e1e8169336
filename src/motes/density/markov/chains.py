"""Many Markov chains at once, warmed up as a population."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.temperature import next_temperature
from motes.core.tree import PyTree
from motes.core.weights import normalise
from motes.density.annealing.annealed import Annealed
from motes.density.kernel_choice import choose_kernel
from motes.density.last_look import LastLook
from motes.density.markov.draws_look import looked_at, spent
from motes.density.markov.warmup import agreement, chains_called, complaints, known_before, learn_from, settled
from motes.errors import MotesError, name_particles
from motes.laws.checking import undefined_met
from motes.laws.compiling import if_long
from motes.laws.improper import improper
from motes.laws.restore import same_values
from motes.laws.tempered import Tempered
from motes.rng import Rng

WINDOWS = (16, 32, 64)
"""Sweeps of the windows of the warm-up; the last one is repeated."""
LONGEST = 1000
"""Sweeps after which an automatic warm-up gives up waiting for the chains to agree."""
BLOCKS = 20
"""Parts in which the draws are made: a checkpoint can fall between two."""
ALONE = 32
"""With fewer chains than this they are never resampled, so that they stay independent of each other."""
RUNG = 0.5
"""The conditional effective sample size that a change of temperature leaves in the warm start."""
RUNG_SWEEPS = 2
HASTE = 1.5
"""The factor by which the temperature rises at least where chains have no weights."""


REFERENCES = (cited("margossian2024", "many short chains"), cited("sountsov2024", "chains as a batch"))


@dataclass(frozen=True)
class Chains(Annealed):
    """Markov chains from a warm start: a Feynman-Kac model without weights, so the same engine, files and report.

    The chains are drawn from the prior and cooled to the posterior as one population (tempered sequential Monte Carlo
    with few sweeps; with fewer than 32 chains without resampling, so that chains stay independent). Then they are
    warmed up in windows: the kernel learns its scales from all chains together. An automatic warm-up is at least a
    tenth as long as the draws (but not over 200 sweeps), and ends when the chains of a window agree (R-hat in every
    coordinate and in the log-density: with fewer than 16 chains at most 1.05, else nested and at most 1.02) and the
    kernel has settled, after 1000 sweeps in any case. Everything learnt is then frozen, so that each draw comes from a
    Markov chain with the right invariant law.

    The view of a run is (chains, draws, ...). `run.mean` has batch-means errors, `run.diagnose()` gives R-hat, nested
    R-hat and effective sample sizes through ArviZ, and says which chains are stuck or diverge. There is no log
    evidence: that is what `Tempering` is for.

    References:
        Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman (2024), Nested R-hat: assessing the convergence of
        Markov chain Monte Carlo when running many short chains, Bayesian Analysis.
        Sountsov, Carroll & Hoffman (2024), Running Markov chain Monte Carlo on modern hardware and software,
        arXiv:2411.04260.

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is ChEES-HMC where there are gradients, else random-walk Metropolis.
        draws: sweeps of every chain after the warm-up.
        warmup: sweeps at the posterior that are discarded; "auto" goes on until the chains agree.
        thin: keep one draw in `thin`; "auto" keeps as many as fit into `memory`.
        memory: bytes that the kept draws may take.
        cool: start by cooling from the prior; False starts the warm-up at draws from the prior.
        keep_score: keep the gradients at the draws, for control variates (`run.mean(f, control=True)`).

    Raises:
        MotesError: the kernel needs gradients that the density has not.

    >>> import torch, motes
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> run = motes.sample(motes.Chains(density, draws=50), 64, seed=0, progress=False)
    >>> tuple(run.view.shape), bool((run.mean().value - 2 / 1.09).abs().max() < 0.05)
    ((64, 50, 2), True)
    """

    _: KW_ONLY
    draws: int = 1000
    warmup: int | Literal["auto"] = "auto"
    thin: int | Literal["auto"] = "auto"
    memory: int = 1 << 30
    cool: bool = True
    keep_score: bool = False

    sources: ClassVar[tuple[Reference, ...]] = REFERENCES
    quantity: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", choose_kernel(self.density, self.kernel, "chees", biased=True))
        least = ((self.warmup, 0), (self.thin, 1))
        few = any(count != "auto" and (not isinstance(count, int) or count < k) for count, k in least)
        if few or self.draws < 1:
            raise MotesError(
                f'need draws >= 1, warmup >= 0 or "auto" and thin >= 1 or "auto", '
                f"not draws={self.draws}, warmup={self.warmup!r}, thin={self.thin!r}"
            )
        if self.keep_score and (not self.mover.gradient or self.mover.discrete):
            raise MotesError(
                f"keep_score needs a kernel that evaluates gradients of real numbers, and {self.mover.name} does not"
            )

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        thin = self._thin(n)
        if thin > self.draws:
            if self.thin != "auto":
                raise MotesError(f"thin={thin} keeps none of {self.draws} draws: it must be at most draws")
            raise MotesError(
                f"{n} chains of {self.density.dim} numbers cannot keep one draw each in {self.memory} bytes: raise "
                "memory, or run fewer chains"
            )
        state = self.density.evaluate(self.density.sample(rng.at("prior"), n), self.mover.gradient)
        dead = ~(state["log_likelihood"] > -math.inf)
        if dead.all():
            raise MotesError(
                f"the likelihood is zero at all {n} starting points, which come from the prior: there is no way for a "
                "chain to move. Widen the likelihood, or start from a law that overlaps with it"
            )
        temperature = 1.0
        flat = torch.zeros(n, dtype=torch.float64)
        if self.cool:
            temperature = next_temperature(flat, state["log_likelihood"], 0.0, RUNG)
        elif dead.any():
            raise MotesError(f"the likelihood is zero where {name_particles(dead.nonzero().flatten().tolist())} start")
        weighted = self.cool and n >= ALONE
        empty = torch.empty(n, 0, self.density.dim, dtype=self.density.dtype)
        x = {
            "state": state,
            "draws": empty,
            "acceptance": flat,
            "divergences": torch.zeros(n, dtype=torch.int64),
            **({"score": empty} if self.keep_score else {}),
        }
        shared = {
            "phase": "cooling" if self.cool else "warmup",
            "temperature": temperature,
            "sweeps": 0,
            "compiled": None if self.density.compile == "auto" else self.density.compile,
            "kernel": self.mover.start(self.density.dim, self.density.dtype),
        }
        shared["look"] = LastLook(1.0).to_shared()
        log_weight = temperature * state["log_likelihood"] if weighted else flat
        return Particles.start(x, log_weight, shared=shared, info={"temperature": temperature, "evaluations": 1.0})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        return {"cooling": self._cool, "warmup": self._warm, "draws": self._draw}[particles.shared["phase"]](
            rng, particles
        )

    def done(self, particles: Particles) -> bool:
        return particles.shared["phase"] == "draws" and particles.shared["sweeps"] >= self.draws

    # ---------------------------------------------------------------- resampling

    def must_resample(self, particles: Particles) -> bool | None:
        """As in any tempering while it cools; once more at its end, so that all weights are equal; then never."""
        if particles.n < ALONE:
            return False
        if particles.shared["phase"] == "cooling":
            return None
        return bool((particles.log_weight != particles.log_weight[0]).any())

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "chains have no weights and so no evidence; motes.Tempering has")

    # ---------------------------------------------------------------- phases

    def _cool(self, rng: Rng, particles: Particles) -> Particles:
        shared, kernel, n = particles.shared, self.mover, particles.n
        now, weight = shared["temperature"], normalise(particles.log_weight)
        target, state = Tempered(self.density, now, bool(shared["compiled"])), particles.x["state"]
        parameters = kernel.fit(shared["kernel"], target, state, weight) if n >= ALONE else shared["kernel"]
        state = kernel.enter(rng.at("enter"), target, state, parameters)
        state, parameters, rate, evaluations, _, _ = learn_from(
            kernel, rng, target, state, weight, parameters, RUNG_SWEEPS, every=1
        )
        likelihood = state["log_likelihood"]
        flat = torch.zeros_like(particles.log_weight)
        temperature = 1.0
        if now < 1:
            temperature = next_temperature(particles.log_weight if n >= ALONE else flat, likelihood, now, RUNG)
            if n < ALONE:  # without weights nothing is lost by haste, and chains in separate modes are not waited for
                temperature = min(1.0, max(temperature, HASTE * now))
            if not temperature > now:
                raise MotesError(
                    f"the temperature cannot rise above {now!r} at t={particles.t + 1}: the log-likelihood varies by "
                    "more than its 16 digits hold; look for a likelihood of enormous size or a prior far too wide"
                )
        potential = (temperature - now) * likelihood if n >= ALONE and temperature > now else flat
        return particles.step(
            {**particles.x, "state": state},
            potential,
            shared={
                "phase": "warmup" if now == 1.0 else "cooling",
                "temperature": temperature,
                "sweeps": 0,
                "compiled": shared["compiled"],
                "kernel": parameters,
                "look": spent(shared, evaluations),
            },
            info={"temperature": temperature, "acceptance": rate, "evaluations": evaluations}
            | kernel.describe(parameters),
        )

    def _warm(self, rng: Rng, particles: Particles) -> Particles:
        shared, kernel, n = particles.shared, self.mover, particles.n
        done, target = shared["sweeps"], Tempered(self.density, 1.0, bool(shared["compiled"]))
        compiled = shared["compiled"]
        limit = LONGEST if self.warmup == "auto" else self.warmup
        least = max(WINDOWS[0] + 1, min(self.draws // 10, 200))
        length = min(_window(done), limit - done)
        weight = torch.full((n,), 1 / n, dtype=torch.float64)
        state, parameters = particles.x["state"], shared["kernel"]
        if done == 0:
            state = kernel.enter(rng.at("enter"), target, state, parameters)
        rate, evaluations, r_hat = math.nan, 0.0, math.nan
        if length > 0:
            before = parameters
            state, parameters, rate, evaluations, history, values = learn_from(
                kernel, rng, target, state, weight, parameters, length
            )
            r_hat, most = agreement(history["position"], values)
            calm = settled(kernel.describe(before), kernel.describe(parameters))
            pooled = {k: v.flatten(0, 1) for k, v in history.items()}
            even = torch.full((len(pooled["position"]),), 1 / len(pooled["position"]), dtype=torch.float64)
            agreed = r_hat < most and calm
            last = done + length >= limit or (self.warmup == "auto" and done + length >= least and agreed)
            if not last or done == 0:  # the last window only confirms what the kernel has learnt
                parameters = kernel.fit(parameters, target, pooled, even)
                if done == 0 and n < ALONE and isinstance(parameters.get("step_size"), float):
                    # few chains have learnt no scale before: their step belongs to that of the prior, and trajectories
                    # at such a step are long. In the scale of the posterior the ideal step is near enough
                    fresh = kernel.start(self.density.dim, self.density.dtype)["step_size"]
                    parameters = {**parameters, "step_size": max(fresh, parameters["step_size"])}
        else:
            last = agreed = True
        done += length
        dead = (~(target.log_density(state) > -math.inf)).nonzero().flatten().tolist()
        if last and dead:
            raise MotesError(
                f"{chains_called(dead)} still stand where the density is zero after {done} sweeps, so no draws can be "
                "made of them: start from a law that overlaps with the density, or run 32 chains or more, which are "
                "resampled while they cool"
            )
        if last and length > 0 and compiled is None:
            ahead = evaluations / length * self.draws
            compiled = if_long(self.density, state["position"], kernel.gradient, ahead)
        return particles.step(
            {**particles.x, "state": state},
            torch.zeros_like(particles.log_weight),
            shared={
                "phase": "draws" if last else "warmup",
                "temperature": 1.0,
                "sweeps": 0 if last else done,
                "compiled": compiled,
                "kernel": parameters,
                "agreed": agreed or self.warmup != "auto",
                "look": spent(shared, evaluations),
            },
            info={"temperature": 1.0, "acceptance": rate, "evaluations": evaluations, "r_hat": r_hat}
            | kernel.describe(parameters),
        )

    def _draw(self, rng: Rng, particles: Particles) -> Particles:
        x, shared, kernel = particles.x, particles.shared, self.mover
        target = Tempered(self.density, 1.0, bool(shared["compiled"]))
        thin, done = self._thin(particles.n), shared["sweeps"]
        stop = min(self.draws, done + math.ceil(self.draws / BLOCKS))
        state, parameters = x["state"], shared["kernel"]
        kept, scores, rate, evaluations = [], [], 0.0, 0.0
        acceptance, divergences = x["acceptance"].clone(), x["divergences"].clone()
        for i in range(done, stop):
            sweep = kernel.sweep(rng.at("sweep", inner=i), target, state, parameters)
            state = sweep.state
            acceptance += (sweep.acceptance.to(acceptance) - acceptance) / (i + 1)
            if sweep.diverged is not None:
                divergences += sweep.diverged
            evaluations += sweep.evaluations
            rate += float(sweep.acceptance.mean())
            if (i + 1) % thin == 0:
                kept.append(state["position"])
                if self.keep_score:
                    scores.append(target.gradient(state))
        new = {"state": state, "acceptance": acceptance, "divergences": divergences}
        new["draws"] = torch.cat([x["draws"], torch.stack(kept, 1)], 1) if kept else x["draws"]
        if self.keep_score:
            new["score"] = torch.cat([x["score"], torch.stack(scores, 1)], 1) if kept else x["score"]
        after = particles.step(
            new,
            torch.zeros_like(particles.log_weight),
            shared={**shared, "sweeps": stop, "look": spent(shared, evaluations)},
            info={
                "temperature": 1.0,
                "acceptance": rate / (stop - done),
                "evaluations": evaluations,
                "divergences": float((divergences - x["divergences"]).sum()),
                **target.told((stop - done) * particles.n),
            }
            | kernel.describe(parameters),
        )
        if not self.done(after):
            return after
        plain = choose_kernel(self.density, None, "hmc")  # moves whole populations, and is exact
        return looked_at(rng.at("last-look"), after, self.density, target, plain, new["draws"])

    # ---------------------------------------------------------------- what a run shows

    def _thin(self, n: int) -> int:
        if self.thin != "auto":
            return self.thin
        size = n * self.density.dim * self.density.dtype.itemsize * (2 if self.keep_score else 1)
        return max(1, math.ceil(size * self.draws / self.memory))

    def shows(self) -> str:
        return "chains"

    def view(self, particles: Particles) -> PyTree:
        """(chains, draws, ...); before the first draw it is where the chains are."""
        draws = particles.x["draws"]
        if draws.shape[1] == 0:
            draws = particles.x["state"]["position"][:, None]
        n, kept = draws.shape[:2]
        values = self.density.constrain(draws.flatten(0, 1))
        return tree.map_leaves(lambda v: v.reshape(n, kept, *v.shape[1:]), values)

    def score(self, particles: Particles) -> Tensor | None:
        return particles.x["score"].flatten(0, 1) if self.keep_score else None

    def remarks(self, particles: Particles) -> list[str]:
        x, shared = particles.x, particles.shared
        if shared["phase"] != "draws":
            return []
        said: list[str] = LastLook(**shared["look"]).remarks() if self.done(particles) else []
        said += improper(self.density, x["state"]["position"])
        said += known_before(self.mover, shared["agreed"], LONGEST)
        said += undefined_met(particles.info) if not x["divergences"].any() else []  # else they are among those
        return said + complaints(x["draws"], x["acceptance"], x["divergences"], shared["sweeps"], self.mover)

    def restore(self, particles: Particles) -> Particles:
        same_values(self.density, particles.x["state"])
        return particles

    def order(self, particles: Particles) -> Tensor:
        state = particles.x["state"]
        return state["position"][:, 0] if self.density.dim == 1 else state["log_likelihood"]

    def progress(self, particles: Particles) -> float:
        shared = particles.shared
        if shared["phase"] == "draws":
            return 0.3 + 0.7 * shared["sweeps"] / self.draws
        if shared["phase"] == "cooling":
            return 0.2 * shared["temperature"]
        return 0.2 + 0.1 * min(1.0, shared["sweeps"] / (200 if self.warmup == "auto" else max(1, self.warmup)))


def _window(done: int) -> int:
    """The length of the window that begins after `done` sweeps."""
    for length in WINDOWS:
        if done < length:
            return length
        done -= length
    return WINDOWS[-1]
