"""Adaptive multiple importance sampling: rounds of fitted proposals, all draws weighed by the mixture of them."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
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

LEARNS, KEEPS, COMPLETE, ENDED = "learns", "keeps", "complete", "ended"
FEW = 10.0
"""Fewer draws than this in effective number tell too little about the spread of their weights."""


@dataclass(frozen=True)
class AMIS(FeynmanKac):
    """Adaptive multiple importance sampling: rounds of N draws, each from a proposal fitted to the rounds before it.

    Round 0 draws from the reference, q_0. Round t draws from q_t, a mixture of Student components fitted by weighted
    expectation maximisation to all draws so far, and a defensive share of the reference. Each draw z of each of the T
    rounds has the weight reference(z) L(z) / ((1 / T) sum_s q_s(z)), made anew after each round. A weight is never more
    than L / defence, whatever the fit. Early fits use weights to a power below 1 that leaves an effective number of
    `elite` times the draws of a round. It goes on until fits do without and the weights of all draws have an effective
    sample size of `ess` N.

    A draw to which a proposal was fitted has too small a weight: the mean of all weights is low by 0.07 nats in 30
    dimensions with 256 particles, and their spread does not tell. So these rounds only learn. A last fit is then kept,
    and rounds are drawn from it until their weights reach `ess` N. The evidence is the mean of these weights alone,
    which is unbiased, and its standard error that of independent draws.

    On the way the particles are those of the last round, with weights scaled to the evidence; in the end they are N
    draws, equally weighted, resampled from the rounds of the last fit. `modified` fits to the last round alone, with
    which Marin, Pudlo & Sedki prove consistency.

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
        ess: the wanted effective sample size of the rounds that learn, and of those of the last fit, in multiples of N.
        elite: the effective number that a fit needs, as a fraction of N, in (0, 1).
        most: rounds after which learning ends anyway, and as many again after which the rest does, with a remark.
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
        shared = {"pool": {**x, "log_proposals": x["log_prior"]}, "laws": 1, "fits": [], "stage": LEARNS}
        return self._weighted(Particles.start(x, x["log_likelihood"].clone(), shared=shared), x, x["log_prior"])

    def must_resample(self, particles: Particles) -> bool:
        """Only in the end, when the particles come from all rounds of the last fit."""
        return particles.shared["stage"] == COMPLETE

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        """N draws from all rounds; those that are the same draw are siblings, which is what errors of means need."""
        pool, weight = particles.shared["pool"], _weight(particles.shared)
        order = pool["log_likelihood"] if scheme.needs_order else None
        index = scheme(rng, weight, n=particles.n, order=order)
        equal, first = torch.full_like(particles.log_weight, particles.log_evidence), _first(index)
        x = tree.take({k: pool[k] for k in particles.x}, index)
        shared = {**particles.shared, "pool": {"log_weight": weight}}
        return replace(particles, x=x, log_weight=equal, ancestor=first, root=first, shared=shared)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared = particles.shared
        if shared["stage"] == COMPLETE:
            look = self._looked(rng, particles)
            info = {"evaluations": look.evaluations / particles.n}
            info |= {k: v for k, v in particles.info.items() if k == "undefined"}
            shared = {**shared, "stage": ENDED, "look": look.to_shared()}
            return replace(particles, t=particles.t + 1, shared=shared, info=info)
        learns, flat = shared["stage"] == LEARNS, False
        if learns:
            fit, flat = self._fit(rng.at("fit"), shared, particles.n)
            shared = {**shared, "fits": [*shared["fits"], fit.state()], "laws": shared["laws"] + 1}
        laws = [Started(self.density, self._mixture(f), share=self.defence) for f in shared["fits"]]
        x, undefined = self.density.trial(laws[-1].sample(rng.at("draw"), particles.n))
        pool, prior = shared["pool"], x["log_prior"]
        every = [q.log_reference(x["position"], prior) for q in laws]
        if learns:
            old = laws[-1].log_reference(pool["position"], pool["log_prior"])
            pool = {**pool, "log_proposals": torch.logaddexp(pool["log_proposals"], old)}
            every = [prior, *every]
        new = {**x, "log_proposals": torch.stack(every).logsumexp(0)}
        shared = {**shared, "pool": {k: torch.cat([v, new[k]]) for k, v in pool.items()}}
        after = self._weighted(replace(particles, t=particles.t + 1, shared=shared), x, every[-1])
        reached, rounds = after.info["pool_ess"] >= self.ess * particles.n, after.info["rounds"]
        if learns and ((reached and not flat) or rounds > self.most):
            last, _ = self._fit(rng.at("last-fit"), shared, particles.n)
            empty = {k: v[:0] for k, v in shared["pool"].items()}
            shared = {**shared, "pool": empty, "laws": 1, "fits": [last.state()], "stage": KEEPS}
        elif not learns and (reached or rounds >= self.most):
            shared = {**shared, "stage": COMPLETE}
        return replace(after, shared=shared, info=after.info | told(undefined, particles.n))

    def done(self, particles: Particles) -> bool:
        return particles.shared["stage"] == ENDED

    def _looked(self, rng: Rng, particles: Particles) -> LastLook:
        """What a last look at the N draws from all rounds finds; with many sweeps where the rounds fell short.

        These must not shift the mean log-weight: it rises where they lead to parts in which the fit has hardly a draw.
        """
        kernel, known = choose_kernel(self.density, None, "hmc"), LastLook(float(particles.t))
        even = torch.full((particles.n,), 1 / particles.n, dtype=torch.float64)
        target, family = Tempered(self.density, 1.0), particles.ancestor
        law = Started(self.density, self._mixture(particles.shared["fits"][-1]), share=self.defence)

        def log_weight(x: State) -> Tensor:
            return (x["log_prior"] + x["log_likelihood"] - law.log_reference(x["position"], x["log_prior"]))[:, None]

        return last_look(
            rng.at("last-look"), known, target, kernel, particles.x, even, family,
            memory=float(self._short(particles)), beside=log_weight,
        )  # fmt: skip

    def _short(self, particles: Particles) -> bool:
        """Whether the rounds of the last fit ended below the wanted effective sample size."""
        return ess(particles.shared["pool"]["log_weight"]) < self.ess * particles.n

    def _mixture(self, fit: dict[str, Tensor]) -> Mixture:
        return Mixture(**fit, freedom=self.freedom)

    def _weighted(self, particles: Particles, x: State, log_proposal: Tensor) -> Particles:
        """The particles of the last round x, drawn from `log_proposal`, with the evidence of the pool's rounds."""
        shared, n = particles.shared, particles.n
        every = _weight(shared)
        evidence = every.logsumexp(0) - math.log(len(every))
        alive = x["log_likelihood"] > -math.inf
        own = torch.where(alive, x["log_prior"] - log_proposal + x["log_likelihood"], -math.inf)
        if float(own.max()) > -math.inf:
            own = own + (evidence - own.logsumexp(0) + math.log(n))
        elif float(evidence) > -math.inf:  # a round that found nothing says nothing
            own = torch.full_like(own, float(evidence))
        info = {"evaluations": 1.0, "pool_ess": ess(every), "rounds": float(len(every) // n)}
        return replace(particles, x=x, log_weight=own, info=info)

    def _fit(self, rng: Rng, shared: dict[str, Any], n: int) -> tuple[Mixture, bool]:
        """The next mixture, from the draws so far, and whether their weights had to be flattened."""
        pool, fits = shared["pool"], shared["fits"]
        z, weight = pool["position"], _weight(shared)
        if self.modified:
            z, prior = z[-n:], pool["log_prior"][-n:]
            q = prior
            if fits:
                q = Started(self.density, self._mixture(fits[-1]), share=self.defence).log_reference(z, prior)
            weight = torch.where(weight[-n:] > -math.inf, prior + pool["log_likelihood"][-n:] - q, -math.inf)
        old, power = self._mixture(fits[-1]) if fits else None, 0.0
        if float(weight.max()) > -math.inf:
            power = _power(weight, self.elite * n)
            flat = torch.softmax(torch.where(weight > -math.inf, power * weight, -math.inf), 0)
            found = fit_mixture(rng, z, flat, components=self.components, freedom=self.freedom, old=old)
            old = old if found is None else found
        if old is None:
            raise MotesError("too few draws of the reference have a positive likelihood to fit to: use more particles")
        return old, power < 1

    def standard_error(self, particles: Particles) -> StandardError:
        method = "independent draws"
        if not self.done(particles):
            return StandardError(math.nan, method, "the run has not ended")
        weight = particles.shared["pool"]["log_weight"]
        size = ess(weight)
        if size < FEW:
            reason = f"the weights are worth {size:.1f} draws, too few to tell their spread: use more particles"
            return StandardError(math.nan, method, reason)
        w = (weight - weight.logsumexp(0) + math.log(len(weight))).exp()
        return StandardError(float(w.std()) / math.sqrt(len(w)), method)

    def remarks(self, particles: Particles) -> list[str]:
        if not self.done(particles):
            return []
        weight = particles.shared["pool"]["log_weight"]
        said = list[str](undefined_met(particles.info)) + improper(self.density, particles.x["position"])
        said += LastLook(**particles.shared["look"]).remarks() if "look" in particles.shared else []
        if self._short(particles):
            said.append(
                f"{self.most} rounds from the last fit ended with an effective sample size of {ess(weight):.0f}, not "
                f"the wanted {self.ess * particles.n:.0f}: use more components or particles, or temper"
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
        stage, info = particles.shared["stage"], particles.info
        if stage in (COMPLETE, ENDED):
            return 1.0
        part = max(min(1.0, info["pool_ess"] / (self.ess * particles.n)), info["rounds"] / (self.most + 1))
        return part / 2 if stage == LEARNS else 0.5 + part / 2 * bool(len(particles.shared["pool"]["position"]))


def _weight(shared: dict[str, Any]) -> Tensor:
    """(T N,) nats, the weights of the pool's draws against the even mixture of the proposals that they came from."""
    pool = shared["pool"]
    target = pool["log_prior"] + pool["log_likelihood"]
    return torch.where(target > -math.inf, target - pool["log_proposals"] + math.log(shared["laws"]), -math.inf)


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
    cited("cornuet2012", "weights against all proposals so far"),
    cited("marin2019", "weights against all proposals so far"),
    cited("hesterberg1995", "the defensive share of the reference"),
)
