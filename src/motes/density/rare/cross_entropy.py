"""The cross-entropy method: importance sampling from a mixture fitted in rounds, for rare events and densities."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.weights import ess, normalise
from motes.density.rare.performance import Performance, performances, same_performance
from motes.errors import MotesError, check_name
from motes.kernels import State, told
from motes.laws.checking import undefined_met
from motes.laws.fits.proposal import Mixture, Started, fit_mixture
from motes.laws.law import Law, must_be_law
from motes.laws.parameters import Values
from motes.laws.restore import same_values
from motes.rng import Rng

STEEP = 0.1
"""The part of the elite that is enough to go up where the level would not rise otherwise."""


@dataclass(frozen=True)
class CrossEntropy(FeynmanKac):
    """Draws in rounds from a mixture fitted to the last round's best; the last round's weights give the estimate.

    For a rare event the normaliser is P(S(X) >= level), X from the density's reference p (times its likelihood L, if it
    has one, which for a plain probability is 1) and S the performance. Each round draws n fresh points from a mixture q
    and takes as its level gamma the largest that the best `elite` n of them reach, `level` at most (or the
    next value up where that would be the last level again, as with whole numbers). The next q maximises the weighted
    likelihood of the points with S >= gamma, weights p L / q, which minimises the cross-entropy to the law of X given
    S >= gamma in the family. It is mixed with the old q by `smoothing` and, for covariances, by
    the smaller `spread`: a fit to the top of a narrow q is narrower still, and would stop short of the level after some
    rounds. The first q is p itself.

    Without a performance it is adaptive importance sampling of the density: L^beta stands for the event, with the
    largest beta at which the effective sample size is still `elite` n.

    After `level` (or beta = 1) is reached there are `refine` more rounds. The points of the last are independent given
    their q, so the estimate is exactly unbiased. Before, it is that of {S >= gamma}, or of p L^beta.

    Gaussians are fitted, but drawn as Student laws with the same location and scale, and with a share `defence` of p: a
    Gaussian fitted to a tail event is so narrow across the level that its weights have no finite variance. Where the
    event has several parts, some may be missed, and with them their probability: no error bar of importance sampling
    sees that; use `components`, or `Splitting`.

    References:
        Rubinstein & Kroese (2004), The Cross-Entropy Method, Springer (also for covariances that change slowly).
        de Boer, Kroese, Mannor & Rubinstein (2005), A tutorial on the cross-entropy method, Annals of Operations
        Research 134.
        Geyer, Papaioannou & Straub (2019), Cross entropy-based importance sampling using Gaussian densities revisited,
        Structural Safety 76 (mixtures).

    Args:
        density: its reference is the law of X.
        performance: maps the parameters of N points to (N,); None samples the density itself.
        level: of the event performance >= level.
        elite: the fraction of the draws that a round's level keeps, in (0, 1).
        family: "full" covariances or "diagonal".
        components: of the mixture.
        smoothing: the new fit's share in weights and means, in (0, 1].
        spread: its share in covariances, in (0, 1].
        freedom: degrees of freedom of the Student components; infinity is Gaussian ones.
        defence: the share of p in each q but the first, in [0, 1).
        refine: rounds after the level was reached.
        most: rounds after which it gives up.

    Raises:
        MotesError: the density is discrete, or the level is not reached in `most` rounds.
        ValueError: a knob is out of its range.

    >>> import torch, motes
    >>> from motes.density.rare.cross_entropy import CrossEntropy
    >>> normal = torch.distributions.Normal(torch.zeros(4, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: torch.zeros(len(x)), normal, vectorised=True)
    >>> model = CrossEntropy(density, performance=lambda x: x.sum(1), level=10.0)
    >>> run = motes.sample(model, 500, seed=0, progress=False)
    >>> abs(run.log_evidence - -15.0650) < 0.3  # log P(N(0, 1) > 5)
    True
    """

    density: Law
    _: KW_ONLY
    performance: Performance | None = None
    level: float | None = None
    elite: float = 0.1
    family: Literal["full", "diagonal"] = "full"
    components: int = 1
    smoothing: float = 0.8
    spread: float = 0.3
    freedom: float = 8.0
    defence: float = 0.05
    refine: int = 2
    most: int = 100

    def __post_init__(self) -> None:
        must_be_law(self.density)
        if self.density.levels is not None:
            raise MotesError("CrossEntropy fits Gaussians on R^d, and this law is discrete: use Splitting or Tempering")
        if (self.performance is None) != (self.level is None):
            raise MotesError("give performance and level both (for an event), or neither (for the density)")
        if self.level is not None and not math.isfinite(self.level):
            raise MotesError(f"level must be finite, not {self.level}")
        if not (0 < self.elite < 1 and 0 < self.smoothing <= 1 and 0 < self.spread <= 1 and 0 <= self.defence < 1):
            raise MotesError(
                "elite must lie in (0, 1), smoothing and spread in (0, 1] and defence in [0, 1), not "
                f"{self.elite}, {self.smoothing}, {self.spread} and {self.defence}"
            )
        check_name("family", self.family, ("full", "diagonal"))
        if not (self.freedom > 0 and min(self.components, self.refine, self.most) >= 1):
            raise MotesError("freedom must be positive, and components, refine and most at least 1")

    @property
    def quantity(self) -> str:  # type: ignore[override]
        return "log evidence" if self.performance is None else "log probability"

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return REFERENCES

    def init(self, rng: Rng, n: int) -> Particles:
        x, _ = self._evaluate(self.density.sample(rng.at("reference"), n), None)
        at = self._next(x, -math.inf if self.performance is not None else 0.0)
        shared = {"at": at, "left": self.refine if at == self._goal else -1, "fit": {}}
        return Particles.start(x, self._weight(x, at), shared=shared, info=self._info(at))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        x, shared, t = particles.x, particles.shared, particles.t + 1
        if shared["left"] < 0 and t > self.most:
            what = f"the level {self.level}" if self.performance is not None else "the whole likelihood"
            raise MotesError(
                f"{what} was not reached in {self.most} rounds, only {shared['at']:.6g}: use more particles, a larger "
                "elite, or a performance that grows towards the event"
            )
        fit = self._fit(rng.at("fit"), x["position"], normalise(particles.log_weight), shared["fit"])
        law = Started(self.density, fit, share=self.defence)
        x, info = self._evaluate(law.sample(rng.at("draw"), particles.n), law)
        if shared["left"] > 0:
            at, left = shared["at"], shared["left"] - 1
        else:
            at = self._next(x, shared["at"])
            left = self.refine if at == self._goal else -1
        shared = {"at": at, "left": left, "fit": fit.state()}
        return replace(particles, x=x, log_weight=self._weight(x, at), t=t, shared=shared, info=self._info(at) | info)

    def done(self, particles: Particles) -> bool:
        return particles.shared["left"] == 0

    def must_resample(self, particles: Particles) -> bool:
        """A round draws afresh, with weights of its own."""
        return False

    @property
    def _goal(self) -> float:
        return 1.0 if self.level is None else self.level

    def _fit(self, rng: Rng, z: Tensor, weight: Tensor, last: dict[str, Tensor]) -> Mixture:
        """The next mixture; the last one again where the points are too few for a fit."""

        def fit(weight: Tensor, old: Mixture | None) -> Mixture | None:
            diagonal = self.family == "diagonal"
            return fit_mixture(
                rng, z, weight, components=self.components, diagonal=diagonal, freedom=self.freedom, old=old
            )

        if last:
            old = Mixture(**last, freedom=self.freedom)
        else:  # the first q is p: what stands for it is fitted to its draws without their weights
            old = fit(torch.full_like(weight, 1 / len(weight)), None)
            if old is None:
                raise MotesError("the draws of the reference do not vary in some coordinate: use more particles")
        new = fit(weight, old)
        return old if new is None else new.smoothed(old, self.smoothing, self.spread)

    def _evaluate(self, z: Tensor, law: Started | None) -> tuple[State, dict[str, float]]:
        """The density's state at z (N, d), and what the trace shows of it.

        With "performance" and "log_proposal", the log of the q that z is from.
        """
        state, undefined = self.density.trial(z) if law else (self.density.evaluate(z), None)
        prior = state["log_prior"]
        state["log_proposal"] = prior if law is None else law.log_reference(z, prior)
        if self.performance is not None:
            state["performance"] = performances(self.performance, self.density.constrain(z), len(z))
        return state, told(undefined, len(z))

    def _weight(self, x: State, at: float) -> Tensor:
        """(N,) nats: p L / q where performance >= `at`, or p L^at / q."""
        likelihood, ratio = x["log_likelihood"], x["log_prior"] - x["log_proposal"]
        if "performance" in x:
            return torch.where(x["performance"] >= at, ratio + likelihood, -math.inf)
        return ratio + torch.where(likelihood > -math.inf, at * likelihood, -math.inf)

    def _next(self, x: State, before: float) -> float:
        """The level, or the power of the likelihood, that leaves the wanted elite; a power is not below `before`."""
        n = len(x["position"])
        if "performance" in x:
            found, few = x["performance"], math.ceil(STEEP * self.elite * n)
            at = float(found.kthvalue(n - math.ceil(self.elite * n) + 1).values)
            if at <= before and int((found > before).sum()) >= few:  # a performance with steps: the next one up
                at = float(found[found > before].min())
            return min(self._goal, at)
        low, high, wanted = before, 1.0, self.elite * n
        if ess(self._weight(x, high)) >= wanted:
            return high
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if ess(self._weight(x, middle)) >= wanted else (low, middle)
        return low

    def _info(self, at: float) -> dict[str, float]:
        return {"temperature" if self.performance is None else "level": at, "evaluations": 1.0}

    def remarks(self, particles: Particles) -> list[str]:
        return [*undefined_met(particles.info)]

    def view(self, particles: Particles) -> Values:
        return self.density.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        """The particles, if density and performance still say of them what their file says.

        Raises:
            FileError: the likelihood, the prior or the performance has changed since.
        """
        same_values(self.density, particles.x)
        if self.performance is not None:
            same_performance(self.performance, self.density, particles.x)
        return particles

    def order(self, particles: Particles) -> Tensor:
        x = particles.x
        return x["position"][:, 0] if self.density.dim == 1 else x.get("performance", x["log_likelihood"])


REFERENCES = (cited("rubinstein2004", "the fitted proposal"), cited("deboer2005", "the fitted proposal"))
