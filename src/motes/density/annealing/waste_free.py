"""Waste-free sequential Monte Carlo: every state that a kernel passes through is a particle."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.estimate.autocorrelation import relative_variance
from motes.core.estimate.variance import StandardError
from motes.core.files.settings import short
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.run import Run
from motes.core.temperature import next_temperature
from motes.core.weights import normalise
from motes.density.annealing.annealed import Annealed, check_shares, climbed, risen
from motes.density.annealing.families import Families
from motes.density.last_look import LastLook
from motes.errors import MotesError
from motes.kernels import Sweep
from motes.kernels.kernel import mean_acceptance
from motes.kernels.moves import correlation, level
from motes.rng import Rng

CHAINS, SHORT = 25, 8
"""The fewest chains that `length="auto"` leaves, except to chains of up to `SHORT` states: autocovariances of chains of
4 said nothing in 30 to 93 % of 30 runs with 256 particles on a line, a hierarchy and a Gaussian in 10 dimensions, and
those of 8 in none, where errors were smaller too for as many evaluations."""
MOST = 100
"""Sweeps between two states of a chain at most."""
CUT = 0.1
"""Chains are called short if the last pairs of the sums that they cut off make more than this part of the variance."""


@dataclass(frozen=True)
class WasteFree(Annealed):
    """Waste-free sequential Monte Carlo from the prior to the posterior: N = M P particles are M chains of P states.

    Each step draws M parents from the N weighted particles, moves each P - 1 times by `sweeps` sweeps of the kernel,
    and keeps all the M P states that these chains pass through. Then the temperature rises until the conditional
    effective sample size is `conditional_ess` of N. It ends with temperature 1 and one last move. The mean weight
    estimates the evidence.

    The standard error of the log evidence adds up what each step contributes, v_t / N, where v_t is the asymptotic
    variance of a mean of G_t / E[G_t] along the chains, by Geyer's initial monotone sequence from the autocovariances
    of all M chains together. It counts on chains that forget their start, so it is checked by the spread between
    families of chains over several steps (`families.Families`): the larger of the two is the standard error, with
    Student's t for the few families. There is none but a reason where the two disagree, or where a sum of
    autocovariances has not died out within P.

    Temperatures and the kernel's parameters are chosen from the particles, which biases the evidence by O(1/N).
    `freeze` fixes them to those of a finished run: with another seed its evidence is unbiased for any M and P, since
    every state of a chain has the law that the kernel leaves invariant whenever its parent has.

    References:
        Dau & Chopin (2022), Waste-free sequential Monte Carlo, JRSS B 84(1), algorithm 2 and section 4.
        Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7(4), section 3.3.

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        length: states of a chain, P, at least 2; the number of particles must be a multiple of it. "auto" is the
            largest divisor of N that is at most the square root of N and leaves at least 25 chains or is at most 8.
        conditional_ess: the fraction of the effective sample size that one change of temperature leaves, in (0, 1).
        sweeps: sweeps of the kernel from one state of a chain to the next; "auto" takes at each temperature as many as
            the chains need to forget their start.
        max_correlation: the correlation of two such states, in every coordinate and the log-density, at which "auto"
            is content. With one sweep each, 40 runs with 256 particles on a regression of 20 coefficients were low by
            .9 nats at a stated .55, and by .25 at .3 with this.
        ladder: temperatures, sweeps and kernel parameters of an earlier run, see `freeze`.

    Raises:
        MotesError: the kernel needs gradients that the density has not, N is no multiple of P, or the resampling
            scheme cannot draw fewer parents than there are particles ("killing").

    >>> import torch, motes
    >>> from motes.density.annealing.waste_free import WasteFree
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> model = WasteFree(motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal))
    >>> run = motes.sample(model, 512, seed=0, progress=False)
    >>> bool((run.mean().value - 2 / 1.09).abs().max() < 0.2)
    True
    """

    _: KW_ONLY
    length: int | Literal["auto"] = "auto"
    conditional_ess: float = 0.5
    sweeps: int | Literal["auto"] = "auto"
    max_correlation: float = 0.3
    ladder: list[dict[str, Any]] | None = None

    sources: ClassVar[tuple[Reference, ...]] = (
        cited("dau2022", "chains whose states are all particles"),
        cited("geyer1992", "the standard error along chains"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self.conditional_ess, self.max_correlation)
        if self.sweeps != "auto" and (not isinstance(self.sweeps, int) or self.sweeps < 1):
            raise MotesError(f'sweeps must be "auto" or a whole number from 1 on, not {self.sweeps!r}')
        if self.length != "auto" and (not isinstance(self.length, int) or self.length < 2):
            raise MotesError(f'length must be "auto" or a number of states from 2 on, not {self.length!r}')

    def init(self, rng: Rng, n: int) -> Particles:
        length = chain_length(n, self.length)
        z = self.density.sample(rng.at("prior"), n)
        x = self.density.evaluate(z, self.mover.gradient)
        temperature = self._next(x["log_likelihood"], 0.0, 0)
        gain = temperature * x["log_likelihood"]
        variance = relative_variance(gain.view(n, 1))[0]
        shared = {
            "temperature": temperature,
            "final": False,
            "length": length,
            "kernel": self.mover.start(self.density.dim, z.dtype),
            "ladder": [{"temperature": temperature}],
            "variance": variance,
            "cut": 0.0,
            "families": Families.start(variance, n).state(),
            "look": LastLook(1.0).to_shared(),
        }
        return Particles.start(x, gain, shared=shared, info={"temperature": temperature, "evaluations": 1.0})

    def must_resample(self, particles: Particles) -> bool:
        return True

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        """The M parents, each repeated P times; the kernel learns its scales from all N weighted particles."""
        shared, length = particles.shared, particles.shared["length"]
        if self.ladder is None:
            target, weight = self.target(shared["temperature"]), normalise(particles.log_weight)
            shared = {**shared, "kernel": self.mover.fit(shared["kernel"], target, particles.x, weight)}
        if scheme.same_n:
            raise MotesError(
                f"waste-free draws {particles.n // length} parents, one a chain, for {particles.n} particles, and "
                f"{scheme.name} resampling can only make as many children as there are particles: choose another "
                'scheme, like resampling="systematic"'
            )
        order = self.order(particles) if scheme.needs_order else None
        parents = scheme(rng, particles.log_weight, n=particles.n // length, order=order)
        # in the order of the particles, so that each half of the chains is scaled by the half it does not descend from
        children = parents.sort().values.repeat_interleave(length)
        return replace(particles.resampled(children), shared=shared)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared, kernel, t = particles.shared, self.mover, particles.t + 1
        now, length = shared["temperature"], shared["length"]
        parameters = shared["kernel"] if self.ladder is None else self.ladder[t]["parameters"]
        target = self.target(now)
        state = tree.take(particles.x, torch.arange(0, particles.n, length))
        state = kernel.enter(rng.at("enter"), target, state, parameters)
        chain, used, evaluations, rate, done, path = [state], parameters, 0.0, 0.0, 0, list[float]()
        weight = torch.full((len(state["position"]),), length / particles.n, dtype=torch.float64)
        start, every = (state["position"], target.log_density(state)), self._every(t)
        while len(chain) < length:
            sweep: Sweep = kernel.sweep(rng.at("sweep", inner=done), target, state, parameters)
            state, done = sweep.state, done + 1
            evaluations += sweep.evaluations / length
            rate += mean_acceptance(sweep, weight)
            used = parameters
            if self.ladder is None:
                parameters = kernel.learn(parameters, sweep, weight)
            if every is None:
                path.append(correlation(weight, *start, state["position"], target.log_density(state), every=True))
                if not (path[-1] <= self.max_correlation or level(path) or done == MOST):
                    continue
                every = done
            if done % every == 0:
                chain.append(state)
        x = {k: torch.stack([s[k] for s in chain], 1).flatten(0, 1) for k in chain[-1]}
        temperature = 1.0 if now == 1.0 else self._next(x["log_likelihood"], now, t)
        gain = (temperature - now) * x["log_likelihood"] if temperature > now else torch.zeros_like(x["log_likelihood"])
        variance, cut = relative_variance(gain.view(-1, length))
        rise = now - (shared["ladder"][-2]["temperature"] if t > 1 else 0.0)
        look = LastLook(**shared["look"]).after(evaluations, rise, x["log_likelihood"])
        shared = {
            **shared,
            "temperature": temperature,
            "final": now == 1.0,
            "kernel": parameters,
            "ladder": [*shared["ladder"], {"temperature": temperature, "parameters": used, "sweeps": every}],
            "variance": shared["variance"] + variance,
            "cut": shared["cut"] + cut,
            "families": Families(**shared["families"]).grown(particles.ancestor, gain, length).state(),
            "look": look.to_shared(),
        }
        info = {
            "temperature": temperature,
            "acceptance": rate / done,
            "evaluations": evaluations,
            "sweeps": float(done),
        }
        info |= kernel.describe(used) | target.told(particles.n * done / length)
        after = particles.step(x, gain, shared=shared, info=info)
        if now < 1.0:
            return after
        even = torch.full((particles.n,), 1 / particles.n, dtype=torch.float64)
        return self.looked(rng, after, x, even, torch.arange(particles.n) // length, self._memory(after))

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def _every(self, t: int) -> int | None:
        """How many sweeps lie between two states of a chain; None where the chains have to tell."""
        if self.ladder is not None:
            return self.ladder[t]["sweeps"]
        return None if self.sweeps == "auto" else self.sweeps

    def _next(self, log_likelihood: Tensor, now: float, t: int) -> float:
        if self.ladder is not None:
            return self.ladder[t]["temperature"]
        if not (log_likelihood > -math.inf).any():
            return 1.0  # nothing is left to choose by; the engine reports it
        temperature = next_temperature(torch.zeros_like(log_likelihood), log_likelihood, now, self.conditional_ess)
        return risen(temperature, now, t)

    def _memory(self, particles: Particles) -> float:
        """How long chains remember, as a part of what leaves the evidence without an error bar."""
        shared = particles.shared
        return max(self._cut(shared), Families(**shared["families"]).apart(shared["variance"]))

    def _cut(self, shared: dict[str, Any]) -> float:
        return shared["cut"] / (CUT * shared["variance"]) if shared["variance"] > 0 else 0.0

    def standard_error(self, particles: Particles) -> StandardError:
        shared, method = particles.shared, "autocovariance of the chains"
        if not math.isfinite(shared["variance"]):
            return StandardError(math.nan, method, "all weights were zero")
        if self._cut(shared) > 1:
            reason = (
                f"the chains of {shared['length']} states are short against their memory: give a larger `length`, or a "
                "kernel that mixes better"
            )
            return StandardError(math.nan, method, reason)
        return Families(**shared["families"]).checked(shared["variance"], method)

    def freeze(self, run: Run) -> WasteFree:
        """The same model with temperatures and kernel parameters fixed to those that `run` found.

        A run of it with another seed estimates the evidence without bias.

        Raises:
            MotesError: the run has not ended, or it is of another kind or density.
        """
        run = run.alone("freeze")
        found, mine, shared = run.setup["settings"], self.settings(), run.particles.shared
        if run.setup["model"] != "WasteFree" or any(found.get(k) != mine[k] for k in ("kernel", "density")):
            raise MotesError(
                f"freeze needs a run of this model, not one of {run.setup['model']} with kernel {found.get('kernel')} "
                f"on {found.get('density')}"
            )
        if not shared["final"]:
            raise MotesError(f"the run stopped at temperature {shared['temperature']:.3g}: resume it, then freeze it")
        return replace(self, ladder=shared["ladder"])

    def score(self, particles: Particles) -> Tensor | None:
        return self.final_score(particles)

    def progress(self, particles: Particles) -> float:
        return climbed(particles)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "ladder": None if self.ladder is None else short(self.ladder)}


def chain_length(n: int, length: int | Literal["auto"]) -> int:
    """The number of states of a chain for `n` particles, see `WasteFree`.

    Raises:
        MotesError: `n` is no multiple of `length`, or has no divisor that would do.
    """
    if length != "auto":
        if n == length:
            raise MotesError(
                f"{n} particles are only one chain of {length} states, which has no other to learn from: give a "
                f"shorter `length`, or {2 * length} particles or another multiple of {length} above it"
            )
        if n % length:
            raise MotesError(
                f"{n} particles are no two or more chains of {length} states: use a multiple of {length} particles"
            )
        return length
    most = min(math.isqrt(n), max(SHORT, n // CHAINS))
    found = max((p for p in range(1, most + 1) if n % p == 0), default=1)
    if found == 1:
        raise MotesError(f"{n} particles cannot be cut into equal chains: use a number with more divisors, like 1000")
    return found
