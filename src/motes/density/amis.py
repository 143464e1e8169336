"""Adaptive multiple importance sampling: rounds of fitted proposals, all draws weighed by the mixture of them."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference
from motes.core.estimate.psis import smooth
from motes.core.estimate.variance import StandardError
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.resampling import Scheme
from motes.core.weights import ess
from motes.density.kernel_choice import choose_kernel
from motes.density.last_look import LastLook, last_look
from motes.errors import MotesError
from motes.kernels import State, told
from motes.laws.checking import undefined_met
from motes.laws.fits.proposal import Mixture, Started, fit_mixture
from motes.laws.improper import improper
from motes.laws.law import Law, must_be_law
from motes.laws.parameters import Values
from motes.laws.restore import same_values
from motes.laws.tempered import Tempered
from motes.rng import Rng

FEW = 10.0
"""Fewer draws than this in effective number tell too little about the spread of their weights."""


@dataclass(frozen=True)
class AMIS(FeynmanKac):
    """Adaptive multiple importance sampling: rounds of N draws, each from a proposal fitted to the rounds before it.

    Round 0 draws from the reference, q_0. Round t draws from q_t, a mixture of Student components fitted by weighted
    expectation maximisation to all draws so far, and a defensive share of the reference. Each draw z of each of the T
    rounds has the weight reference(z) L(z) / ((1 / T) sum_s q_s(z)), made anew after each round, and the mean of all
    T N weights is the evidence. A weight is never more than L / defence, whatever the fit. It goes on until the weights
    of all draws have an effective sample size of `ess` N. Early fits use weights to a power below 1 that leaves an
    effective number of `elite` times the draws of a round.

    A draw to which a proposal was fitted has too small a weight, which biases the log evidence down: by 0.15 in 10
    dimensions with 500 particles. So the particles are two halves, with proposals each, and those of one half are
    fitted to the draws of the other. Where a fit needs flattened weights its influence comes back through the other
    half; so once fits do without, the rounds before no longer count. What bias is left is of second order in a fit's
    error.

    On the way the particles are those of the last round, with weights scaled to the evidence of all; in the end they
    are N draws, equally weighted, resampled from all T N. `modified` fits to the last round alone, with which Marin,
    Pudlo & Sedki prove consistency. The standard error is that of T independent rounds, given the proposals.

    References:
        Cornuet, Marin, Mira & Robert (2012), Adaptive multiple importance sampling, Scandinavian Journal of Statistics
        39(4).
        Marin, Pudlo & Sedki (2019), Consistency of adaptive importance sampling and recycling schemes, Bernoulli 25(3).
        Hesterberg (1995), Weighted average importance sampling and defensive mixture distributions, Technometrics
        37(2).

    Args:
        density: what to sample.
        components: of the mixture.
        freedom: degrees of freedom of the components; infinity is Gaussian ones.
        defence: the share of the reference in each proposal, in [0, 1).
        ess: the wanted effective sample size of all draws, as a multiple of N.
        elite: the effective number that a fit needs, as a fraction of N, in (0, 1).
        most: rounds after which it ends anyway, with a remark.
        modified: fit to the draws of the last round alone.

    Raises:
        MotesError: the density is discrete.
        ValueError: a knob is out of its range.

    >>> import math, torch, motes
    >>> from motes.density.amis import AMIS
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> run = motes.sample(AMIS(density), 500, seed=0, progress=False)
    >>> abs(run.log_evidence - (math.log(0.09 / 1.09) - 4 / 1.09)) < 3 * run.log_evidence_se < 0.2
    True
    """

    density: Law
    _: KW_ONLY
    components: int = 3
    freedom: float = 5.0
    defence: float = 0.1
    ess: float = 1.0
    elite: float = 0.1
    most: int = 30
    modified: bool = False

    quantity: ClassVar[str] = "log evidence"

    def __post_init__(self) -> None:
        must_be_law(self.density)
        if self.density.levels is not None:
            raise MotesError("AMIS fits mixtures on R^d, and this density is over whole numbers")
        if not (0 <= self.defence < 1 and 0 < self.elite < 1):
            raise MotesError(f"defence must lie in [0, 1) and elite in (0, 1), not {self.defence} and {self.elite}")
        if not (self.freedom > 0 and self.ess > 0 and min(self.components, self.most) >= 1):
            raise MotesError("freedom and ess must be positive, components and most at least 1")

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return REFERENCES

    def init(self, rng: Rng, n: int) -> Particles:
        if n < 4:
            raise MotesError(f"AMIS needs at least 4 particles, not {n}")
        x = self.density.evaluate(self.density.sample(rng.at("reference"), n))
        pools = [{**part, "log_proposals": part["log_prior"], "log_late": part["log_prior"]} for part in _halves(x)]
        shared = {"pools": pools, "rounds": 1, "late": 0, "fits": [[], []], "complete": False, "final": False}
        particles = Particles.start(x, x["log_likelihood"].clone(), shared=shared)
        return self._weighted(particles, x, x["log_prior"])

    def must_resample(self, particles: Particles) -> bool:
        """Only in the end, when the particles come from all rounds."""
        return particles.shared["complete"]

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        """N draws from all rounds; those that are the same draw are siblings, which is what errors of means need."""
        shared = particles.shared
        pools = [_late(p, shared) for p in shared["pools"]]
        weight = _evidence_weights(shared)
        x = {k: torch.cat([p[k] for p in pools]) for k in particles.x}
        order = x["log_likelihood"] if scheme.needs_order else None
        index = scheme(rng, weight, n=particles.n, order=order)
        equal, first = torch.full_like(particles.log_weight, particles.log_evidence), _first(index)
        shared = {**shared, "pools": [{"log_weight": weight}]}
        return replace(particles, x=tree.take(x, index), log_weight=equal, ancestor=first, root=first, shared=shared)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared = particles.shared
        if shared["complete"]:
            look = self._looked(rng, particles)
            info = {"evaluations": look.evaluations / particles.n}
            info |= {k: v for k, v in particles.info.items() if k == "undefined"}
            shared = {**shared, "final": True, "look": look.to_shared()}
            return replace(particles, t=particles.t + 1, shared=shared, info=info)
        rounds, late = shared["rounds"], shared["late"]
        made = [
            self._fit(rng.at(f"fit-{j}"), shared["pools"][1 - j], shared["fits"][1 - j], shared["fits"][j], rounds)
            for j in (0, 1)
        ]
        flat = any(flattened for _, flattened in made)
        if flat and rounds == 1:
            late = -1  # once fits do without, the rounds before will no longer count
        elif late < 0 and not flat:
            late = rounds
        fits = [[*old, fit.state()] for old, (fit, _) in zip(shared["fits"], made, strict=True)]
        laws = [[Started(self.density, self._mixture(f), share=self.defence) for f in part] for part in fits]
        sizes = [len(p["position"]) // rounds for p in shared["pools"]]
        drawn = [laws[j][-1].sample(rng.at(f"draw-{j}"), sizes[j]) for j in (0, 1)]
        (x, undefined), pools, newest = self.density.trial(torch.cat(drawn)), [], []
        for pool, law, part in zip(shared["pools"], laws, _halves(x), strict=True):
            z, prior = part["position"], part["log_prior"]
            old = law[-1].log_reference(pool["position"], pool["log_prior"])
            every = torch.stack([prior, *(q.log_reference(z, prior) for q in law)])
            newest.append(every[-1])
            joined = {k: torch.cat([pool[k], v]) for k, v in part.items()}
            joined["log_proposals"] = torch.cat([torch.logaddexp(pool["log_proposals"], old), every.logsumexp(0)])
            before = old if late == rounds else torch.logaddexp(pool["log_late"], old)
            joined["log_late"] = torch.cat([before, every[max(late, 0) :].logsumexp(0)])
            pools.append(joined)
        shared = {**shared, "pools": pools, "rounds": rounds + 1, "late": late, "fits": fits}
        after = self._weighted(replace(particles, t=particles.t + 1, shared=shared), x, torch.cat(newest))
        return replace(after, info=after.info | told(undefined, particles.n))

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def _looked(self, rng: Rng, particles: Particles) -> LastLook:
        """What a last look at the N draws from all rounds finds."""
        kernel, rounds = choose_kernel(self.density, None, "hmc"), float(particles.shared["rounds"])
        even = torch.full((particles.n,), 1 / particles.n, dtype=torch.float64)
        target = Tempered(self.density, 1.0)
        return last_look(rng.at("last-look"), LastLook(rounds), target, kernel, particles.x, even, particles.ancestor)

    def _mixture(self, fit: dict[str, Tensor]) -> Mixture:
        return Mixture(**fit, freedom=self.freedom)

    def _weighted(self, particles: Particles, x: State, log_proposal: Tensor) -> Particles:
        """The particles of the last round x, drawn from `log_proposal`, with the evidence of all rounds."""
        shared, n = particles.shared, particles.n
        every = _evidence_weights(shared)
        evidence = every.logsumexp(0) - math.log(len(every))
        alive = x["log_likelihood"] > -math.inf
        own = torch.where(alive, x["log_prior"] - log_proposal + x["log_likelihood"], -math.inf)
        if float(own.max()) > -math.inf:
            own = own + (evidence - own.logsumexp(0) + math.log(n))
        elif float(evidence) > -math.inf:  # a round that found nothing says nothing
            own = torch.full_like(own, float(evidence))
        size = ess(every)
        complete = (size >= self.ess * n and shared["late"] >= 0) or shared["rounds"] > self.most
        info = {"evaluations": 1.0, "pool_ess": size, "rounds": float(shared["rounds"])}
        return replace(particles, x=x, log_weight=own, shared={**shared, "complete": complete}, info=info)

    def _fit(self, rng: Rng, pool: State, theirs: list[Any], ours: list[Any], rounds: int) -> tuple[Mixture, bool]:
        """The next mixture for one half, from the draws of the other, and whether their weights had to be flattened.

        The draws came from the mixtures `theirs`; `ours` are those of this half so far.
        """
        n, z = len(pool["position"]) // rounds, pool["position"]
        weight = _weight(pool, "log_proposals", rounds)
        if self.modified:
            z, prior = z[-n:], pool["log_prior"][-n:]
            q = prior
            if theirs:
                q = Started(self.density, self._mixture(theirs[-1]), share=self.defence).log_reference(z, prior)
            weight = torch.where(weight[-n:] > -math.inf, prior + pool["log_likelihood"][-n:] - q, -math.inf)
        old, power = self._mixture(ours[-1]) if ours else None, 0.0
        if float(weight.max()) > -math.inf:
            power = _power(weight, self.elite * n)
            flat = torch.softmax(torch.where(weight > -math.inf, power * weight, -math.inf), 0)
            found = fit_mixture(rng, z, flat, components=self.components, freedom=self.freedom, old=old)
            old = old if found is None else found
        if old is None:
            raise MotesError("too few draws of the reference have a positive likelihood to fit to: use more particles")
        return old, power < 1

    def standard_error(self, particles: Particles) -> StandardError:
        method = "independent rounds"
        if not self.done(particles):
            return StandardError(math.nan, method, "the run has not ended")
        shared = particles.shared
        weight, rounds = shared["pools"][0]["log_weight"], shared["rounds"] - max(shared["late"], 0)
        size = ess(weight)
        if size < FEW:
            reason = f"the weights are worth {size:.1f} draws, too few to tell their spread: use more particles"
            return StandardError(math.nan, method, reason)
        w = (weight - weight.logsumexp(0) + math.log(len(weight))).exp()
        half = rounds * ((particles.n + 1) // 2)
        sums = [v.var(1).sum() * v.shape[1] for v in (w[:half].view(rounds, -1), w[half:].view(rounds, -1))]
        return StandardError(math.sqrt(float(sum(sums))) / len(w), method)

    def remarks(self, particles: Particles) -> list[str]:
        if not self.done(particles):
            return []
        weight = particles.shared["pools"][0]["log_weight"]
        said = list[str](undefined_met(particles.info)) + improper(self.density, particles.x["position"])
        said += LastLook(**particles.shared["look"]).remarks() if "look" in particles.shared else []
        if particles.shared["late"] < 0:
            text = (
                f"the fits needed flattened weights in all of {self.most} rounds, which biases the evidence: use more "
                "particles or rounds, or temper"
            )
            said.append(Remark(text, ALL, withholds=True))
        elif ess(weight) < self.ess * particles.n:
            said.append(
                f"{self.most} rounds ended with an effective sample size of {ess(weight):.0f}, not the wanted "
                f"{self.ess * particles.n:.0f}: use more components or particles, or temper"
            )
        try:
            smoothed = smooth(weight)
        except ImportError:  # k-hat is an extra
            return said
        if not smoothed.reliable:
            said.append(Remark(f"of the weights of all rounds, {smoothed.advice}", ALL, withholds=True))
        return said

    def view(self, particles: Particles) -> Values:
        return self.density.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        same_values(self.density, particles.x)
        return particles

    def order(self, particles: Particles) -> Tensor:
        return particles.x["log_likelihood"]

    def progress(self, particles: Particles) -> float:
        shared = particles.shared
        if shared["final"] or shared["complete"]:
            return 1.0
        reached = ess(_evidence_weights(shared)) / (self.ess * particles.n)
        return max(min(1.0, reached), shared["rounds"] / (self.most + 1))


def _halves(x: State) -> tuple[State, State]:
    n = (len(x["position"]) + 1) // 2
    return {k: v[:n] for k, v in x.items()}, {k: v[n:] for k, v in x.items()}


def _late(pool: State, shared: dict[str, Any]) -> State:
    """The draws that count: those of the rounds since fits are right, or of all before that."""
    first = max(shared["late"], 0) * (len(pool["position"]) // shared["rounds"])
    return {k: v[first:] for k, v in pool.items()}


def _evidence_weights(shared: dict[str, Any]) -> Tensor:
    """(T N,) nats, all draws that count of the first half, and then of the second."""
    rounds = shared["rounds"] - max(shared["late"], 0)
    return torch.cat([_weight(_late(p, shared), "log_late", rounds) for p in shared["pools"]])


def _weight(pool: State, name: str, rounds: int) -> Tensor:
    """(T N,) nats, the weights of draws against the even mixture of `rounds` proposals, whose sum is under `name`."""
    target = pool["log_prior"] + pool["log_likelihood"]
    return torch.where(target > -math.inf, target - pool[name] + math.log(rounds), -math.inf)


def _power(log_weight: Tensor, wanted: float) -> float:
    """The largest power up to 1 of the weights that leaves an effective number of `wanted`, or nearly."""
    alive, low, high = log_weight > -math.inf, 0.0, 1.0
    if ess(log_weight) >= wanted:
        return 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        enough = ess(torch.where(alive, middle * log_weight, -math.inf)) >= wanted
        low, high = (middle, high) if enough else (low, middle)
    return low


def _first(index: Tensor) -> Tensor:
    """(N,) the first slot that holds the same number as this one."""
    inverse = torch.unique(index, return_inverse=True)[1]
    slots = torch.arange(len(index))
    return torch.full_like(slots, len(index)).scatter_reduce(0, inverse, slots, "amin")[inverse]


REFERENCES = (
    Reference(
        "cornuet2012",
        "Cornuet, Marin, Mira, Robert",
        2012,
        "Adaptive multiple importance sampling",
        "Scandinavian Journal of Statistics 39(4)",
        "weights against all proposals so far",
    ),
    Reference(
        "marin2019",
        "Marin, Pudlo, Sedki",
        2019,
        "Consistency of adaptive importance sampling and recycling schemes",
        "Bernoulli 25(3)",
        "weights against all proposals so far",
    ),
    Reference(
        "hesterberg1995",
        "Hesterberg",
        1995,
        "Weighted average importance sampling and defensive mixture distributions",
        "Technometrics 37(2)",
        "the defensive share of the reference",
    ),
)
