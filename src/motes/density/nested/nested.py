"""Nested sampling: the evidence as a sum over shells of equal likelihood, found by a population that climbs."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.resampling import Scheme, find_scheme
from motes.density.annealing.annealed import Annealed
from motes.density.kernel_choice import choose_kernel
from motes.density.nested.nested_error import Shells, ranks, unlikely
from motes.errors import MotesError, check_at_least, check_share
from motes.kernels import State, Tally, Target, move
from motes.laws.law import Law, must_be_law
from motes.rng import Rng

ENOUGH = 30
"""Fewer moved particles than this do not tell when they have forgotten their start."""
REHEARSAL = 0.25
"""Where clones are so few, the whole population is moved once in this many nats, to learn how many sweeps it takes."""
BINS = 32
FEWEST = 5
"""With fewer survivors of a level than this, it is not known how many there should have been."""
UNLIKELY = 1e-4
"""A run whose insertion ranks are as uneven as fewer than this part of good runs' gets a remark."""


@dataclass(frozen=True)
class Inside(Target):
    """The reference of a law, kept to the points with a likelihood above a level."""

    density: Law
    level: float
    counted: Tally = field(default_factory=Tally, compare=False, repr=False)

    @property
    def levels(self) -> int | None:
        return self.density.levels

    def tally(self) -> Tally:
        return self.counted

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        state, undefined = self.density.trial(position, gradient)
        self.counted.add(undefined)
        return state

    def log_density(self, state: State) -> Tensor:
        return torch.where(state["log_likelihood"] > self.level, state["log_prior"], -math.inf)

    def gradient(self, state: State) -> Tensor:
        return torch.where((state["log_likelihood"] > self.level)[:, None], state["prior_gradient"], 0.0)

    def emulated(self, state: State) -> Tensor:
        return torch.stack([state["log_prior"], state["log_likelihood"]], 1)

    def from_emulated(self, value: Tensor, spread: Tensor) -> Tensor:
        # soft, so that a point whose likelihood is misjudged can still be left and reached
        return value[:, 0] + torch.nn.functional.logsigmoid((value[:, 1] - self.level) / spread[1])


REFERENCES = (
    cited("skilling2006", "nested sampling"),
    cited("salomone2018", "nested sampling with an unbiased evidence"),
    cited("fowlie2020", "the check of insertion ranks"),
)


@dataclass(frozen=True)
class NestedSampling(Annealed):
    """Nested sampling: N live points climb in likelihood, and what they leave behind at each level adds up to Z.

    The live points are draws from the reference where L > level, whose volume there is X. A step kills the k with the
    lowest L (the k-th smallest is the next level; all with L <= level die, K >= k of them where there are ties), adds
    X / N times the sum of their L to the evidence, sets X to X (N - K) / N, and fills the places with clones of the
    survivors, as evenly as can be. Sweeps of a kernel that leaves the reference above the level invariant move the
    clones until the ranks of their L and their coordinates have forgotten the parents. The run ends when the live
    points' own share, X mean(L), is below `tolerance`, and that share is added.

    With ideal moves the estimate is unbiased for any N, k, ties and tolerance: what is behind plus X mean(L) is a
    martingale. That is not so with the classical volumes exp(-t / N), nor with the level instead of the L of those
    who die. With Markov moves the number of sweeps and the kernel's scales are learnt from the points, which biases it
    by a term of order 1/N.

    A mode whose volume holds no live point when the level parts it from the others is lost, and nothing in the run
    shows it: with modes of very unequal width use many points.

    Final particles are N equally weighted draws from all the dead and the live, resampled by weight. Of the dead `keep`
    N at most are remembered (more are thinned by weight, which leaves the evidence alone).

    The standard error adds up how much the families of an earlier generation differ in what they leave behind at each
    level (`nested_error.Shells`): that is the variance of ideal moves if clones forget, and more where they do not. A
    remark says so if the ranks at which clones are inserted among the others are not uniform; the opposite is no proof,
    since clones that do not move at all have uniform ranks too.

    References:
        Skilling (2006), Nested sampling for general Bayesian computation, Bayesian Analysis 1(4).
        Salomone, South, Drovandi & Kroese (2018), Unbiased and consistent nested sampling via sequential Monte Carlo,
        arXiv:1805.03924.
        Bréhier, Lelièvre & Rousset (2015), Analysis of adaptive multilevel splitting algorithms in an idealized case,
        ESAIM: Probability and Statistics 19 (no bias whatever k).
        Fowlie, Handley & Su (2020), Nested sampling cross-checks using order statistics, Monthly Notices of the Royal
        Astronomical Society 497(4).

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is random-walk Metropolis, or single flips of whole numbers. "slice"
            (hit-and-run) takes fewer sweeps and 2 to 4 times the evaluations; "delayed-acceptance" has an emulator of
            the likelihood, fitted to the live points, propose, and saves most evaluations where that is good.
        discard: the fraction of the live points that dies at a level, in (0, 1).
        tolerance: the share of the live points at which the run ends, in (0, 1).
        sweeps: sweeps of the kernel; "auto" goes on until the clones have forgotten their parents.
        max_correlation: the correlation with the parents at which "auto" stops, in (0, 1).
        keep: the most dead points a live one that are remembered.

    Raises:
        MotesError: the kernel needs gradients that the density has not, or moves other points than the density's.
        ValueError: a knob is out of its range.

    >>> import math, torch, motes
    >>> from motes.density.nested.nested import NestedSampling
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> model = NestedSampling(motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal))
    >>> run = motes.sample(model, 200, seed=0, progress=False)
    >>> truth = math.log(0.09 / 1.09) - 4 / 1.09
    >>> abs(run.log_evidence - truth) < 3 * run.log_evidence_se < 1
    True
    """

    _: KW_ONLY
    discard: float = 0.5
    tolerance: float = 1e-3
    sweeps: int | Literal["auto"] = "auto"
    max_correlation: float = 0.2
    keep: int = 16

    sources: ClassVar[tuple[Reference, ...]] = REFERENCES
    by_weight: ClassVar[bool] = False

    def __post_init__(self) -> None:
        must_be_law(self.density)
        check_share("(0, 1)", discard=self.discard, tolerance=self.tolerance, max_correlation=self.max_correlation)
        if self.sweeps != "auto" and (not isinstance(self.sweeps, int) or self.sweeps < 1):
            raise MotesError(f'sweeps must be "auto" or a number of sweeps, not {self.sweeps!r}')
        check_at_least(2, keep=self.keep)
        kernel = self.kernel or ("flip" if self.density.levels is not None else "random-walk")
        object.__setattr__(self, "kernel", choose_kernel(self.density, kernel, "random-walk"))

    def init(self, rng: Rng, n: int) -> Particles:
        if n < 4:
            raise MotesError(f"nested sampling needs at least 4 live points, not {n}")
        z = self.density.sample(rng.at("reference"), n)
        x = self.density.evaluate(z, self.mover.gradient)
        shared = {
            "log_volume": 0.0,
            "log_behind": -math.inf,
            "level": -math.inf,
            "final": False,
            "kernel": self.mover.start(self.density.dim, z.dtype),
            "sweeps": 0,
            "rehearsed": math.inf,
            "dead": {**{k: v[:0] for k, v in x.items()}, "log_weight": z.new_zeros(0, dtype=torch.float64)},
            "shells": Shells.start(n).state(),
            "ranks": {"all": torch.zeros(BINS, dtype=torch.int64), "window": torch.zeros(BINS, dtype=torch.int64)},
            "worst": {"p": 1.0, "windows": 0},
            "fewest": n,
        }
        particles = Particles.start(x, torch.zeros(n, dtype=torch.float64), shared=shared)
        return self._weighted(rng, particles, {"evaluations": 1.0})

    def must_resample(self, particles: Particles) -> bool:
        return True

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        """The survivors, each with its clones beside it; the dead go into `shared`."""
        shared, n, likelihood = particles.shared, particles.n, particles.x["log_likelihood"]
        level = self._level(likelihood)
        alive = likelihood > level
        lost, survivors = (~alive).nonzero().flatten(), alive.nonzero().flatten()
        weight = shared["log_volume"] - math.log(n) + likelihood[lost]
        each, more = divmod(len(lost), len(survivors))
        extra = survivors[rng.at("parents").permutation(len(survivors))[:more]]
        index = torch.cat([survivors.repeat(1 + each), extra]).sort().values
        shells = Shells(**shared["shells"]).killed(likelihood, alive, weight, index)
        shared = {
            **shared,
            "log_behind": float(torch.logaddexp(torch.tensor(shared["log_behind"]).double(), weight.logsumexp(0))),
            "log_volume": shared["log_volume"] + compression(len(survivors), n),
            "level": level,
            "dead": self._bury(rng.at("bury"), shared["dead"], tree.take(particles.x, lost), weight, n),
            "shells": shells.state(),
            "fewest": min(shared["fewest"], len(survivors)),
            "rehearsed": shared["rehearsed"] + math.log(n / len(survivors)),
        }
        return replace(particles.resampled(index), shared=shared)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        n, index, x, shared = particles.n, particles.ancestor, particles.x, particles.shared
        fresh = torch.zeros(n, dtype=torch.bool)
        fresh[1:] = index[1:] == index[:-1]
        old, new = (~fresh).nonzero().flatten(), fresh.nonzero().flatten()
        target, kernel = Inside(self.density, shared["level"]), self.mover
        survivors = tree.take(x, old)
        even = torch.full((len(old),), 1 / len(old), dtype=torch.float64)
        parameters = kernel.fit(shared["kernel"], target, survivors, even)
        sweeps = self.sweeps
        who, learn = new, True
        if sweeps == "auto" and (len(new) < ENOUGH or kernel.ensemble):
            learn = shared["rehearsed"] >= REHEARSAL
            who, sweeps = (torch.arange(n), "auto") if learn else (new, shared["sweeps"])
        part = tree.take(x, who)
        weight = torch.full((len(who),), 1 / len(who), dtype=torch.float64)
        moved = move(
            kernel,
            rng,
            target,
            part,
            weight,
            parameters,
            sweeps=sweeps,
            max_correlation=self.max_correlation,
            adapt=learn,
            watch=_rank,
        )
        x = {k: v.index_copy(0, who, moved.state[k]) for k, v in x.items()}
        shared = {**shared, "kernel": moved.parameters, "sweeps": moved.sweeps}
        if learn:
            shared["rehearsed"] = 0.0
        if len(who) < n:
            found = ranks(rng.at("ranks"), survivors["log_likelihood"], moved.state["log_likelihood"], BINS)
            shared = {**shared, **self._inserted(shared, found, n)}
        info = {**moved.info, "evaluations": moved.info["evaluations"] * len(who) / n}
        return self._weighted(rng, replace(particles, x=x, t=particles.t + 1, shared=shared), info)

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def _level(self, likelihood: Tensor) -> float:
        k = max(1, round(self.discard * len(likelihood)))
        return float(likelihood.kthvalue(min(k, len(likelihood) - 1)).values)

    def _weighted(self, rng: Rng, particles: Particles, info: dict[str, float]) -> Particles:
        """The live points with the weights that the evidence so far asks for, or the final draws."""
        x, shared, n = particles.x, particles.shared, particles.n
        likelihood, behind = x["log_likelihood"], torch.tensor(shared["log_behind"], dtype=torch.float64)
        share = shared["log_volume"] + likelihood
        live = share.logsumexp(0) - math.log(n)
        evidence = torch.logaddexp(live, behind)
        left = float((live - evidence).exp()) if float(evidence) > -math.inf else 1.0
        # where all that are above the next level are none, the rest is a plateau and its mean all there is to know
        final = left < self.tolerance or not bool((likelihood > self._level(likelihood)).any())
        info = {"level": shared["level"], "log_volume": shared["log_volume"], "remaining": left, **info}
        if not final:
            weight = torch.logaddexp(share, behind)
            return replace(particles, log_weight=weight, info=info)
        dead = shared["dead"]
        weight = torch.cat([dead["log_weight"], share - math.log(n)])
        if float(evidence) > -math.inf:
            index = find_scheme("systematic")(rng.at("collect"), weight, n=n)[rng.at("order").permutation(n)]
            x = {k: torch.cat([dead[k], v]).index_select(0, index) for k, v in x.items()}
        shells = Shells(**shared["shells"]).ended(share - math.log(n))
        shared = {**shared, "final": True, "shells": shells.state()}
        return replace(particles, x=x, log_weight=torch.full((n,), float(evidence)).double(), shared=shared, info=info)

    def _bury(self, rng: Rng, dead: State, lost: State, weight: Tensor, n: int) -> State:
        """The dead with those who have just died; thinned to half of `keep` N when they are more than that."""
        seen = weight > -math.inf
        lost = {**{k: v[seen] for k, v in lost.items()}, "log_weight": weight[seen]}
        dead = {k: torch.cat([v, lost[k]]) for k, v in dead.items()}
        if len(dead["log_weight"]) <= self.keep * n:
            return dead
        most = self.keep * n // 2
        index = find_scheme("systematic")(rng, dead["log_weight"], n=most)
        total = float(dead["log_weight"].logsumexp(0))
        return {**tree.take(dead, index), "log_weight": torch.full((most,), total - math.log(most)).double()}

    def _inserted(self, shared: dict[str, Any], found: Tensor, n: int) -> dict[str, Any]:
        """The counts of insertion ranks with those just `found` (BINS,); a window holds as many as there are points."""
        every, window, worst = shared["ranks"]["all"] + found, shared["ranks"]["window"] + found, shared["worst"]
        if int(window.sum()) >= n:
            worst = {"p": min(worst["p"], unlikely(window)), "windows": worst["windows"] + 1}
            window = torch.zeros_like(window)
        return {"ranks": {"all": every, "window": window}, "worst": worst}

    def standard_error(self, particles: Particles) -> StandardError:
        if not self.done(particles):
            return StandardError(math.nan, "families at each level", "the run has not ended")
        found, fewest = Shells(**particles.shared["shells"]).standard_error(), particles.shared["fewest"]
        if fewest >= FEWEST or found.reason:
            return found
        reason = (
            f"only {fewest} of {particles.n} live points lay above one of the levels, which says little about how many "
            "should have: use more live points"
        )
        return StandardError(math.nan, found.method, reason, means=reason)

    def remarks(self, particles: Particles) -> list[str]:
        shared = particles.shared
        p = min(unlikely(shared["ranks"]["all"]), shared["worst"]["p"] * max(1, shared["worst"]["windows"]))
        if p >= UNLIKELY or not self.done(particles):
            return super().remarks(particles)
        text = (
            f"the places that moved points take among the others are not uniform (p = {p:.1g}): the kernel does not "
            "reach all of the constrained region; use more sweeps (a smaller `max_correlation`), another kernel or "
            "more points"
        )
        return [*super().remarks(particles), Remark(text, ALL, withholds=True)]

    def score(self, particles: Particles) -> Tensor | None:
        return self.final_score(particles)

    def progress(self, particles: Particles) -> float:
        """The share of the evidence that is behind."""
        return min(1.0, math.exp(min(0.0, particles.shared["log_behind"] - particles.log_evidence)))


def compression(survivors: int, n: int) -> float:
    """What the logarithm of the volume changes by: with the mean of the volume in its place Z has no bias."""
    return math.log(survivors / n)


def _rank(state: State) -> Tensor:
    """(N,) the ranks of the likelihoods, which have no outliers."""
    return state["log_likelihood"].argsort().argsort().double()
