"""Annealed importance sampling: independent particles, weighted along a ladder that others found."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch

from motes.core.cite import Reference, cited
from motes.core.estimate.upper_tail import pareto_shape
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.smc import steps as walk
from motes.core.weights import normalise
from motes.density.annealing.annealed import Annealed
from motes.density.annealing.tempering import Tempering
from motes.density.last_look import LastLook, excess
from motes.errors import AllWeightsZero, MotesError
from motes.kernels.stationarity.noncentred import NonCentred
from motes.kernels.stationarity.settle import mapped
from motes.rng import Rng

LEFT = 0.9
"""What one change of temperature of the pilot leaves of its conditional effective sample size."""
FEW = 5.0
"""Fewer particles than this in effective number tell too little about the spread of their weights."""
HEAVY = 0.7
"""The shape of the tail of the weights above which a mean of them has no error bar; means of weights with a shape of
1/2 or more have no variance."""


@dataclass(frozen=True)
class AnnealedImportanceSampling(Annealed):
    """Annealed importance sampling: no resampling, so the weights are independent, and E[Z_hat] = Z for any N.

    Each particle starts in the prior and goes through the laws prior x likelihood^b_k, 0 < b_1 < ... < b_K = 1, by
    `sweeps` sweeps of a kernel at each; its weight is the product of likelihood^(b_k+1 - b_k) at the states on the
    way. Temperatures and kernel parameters come from a pilot, an adaptive tempering of other particles with random
    numbers of their own. Given the pilot nothing depends on the particles, so the evidence is exactly unbiased.

    The standard error is that of a mean of N independent weights, sqrt((N / ESS - 1) / (N - 1)) relative to it, with
    Student's t for the effective sample size. Where that is below 5, or the weights have a heavy tail, there is none:
    then the largest weights have hardly been seen.

    References:
        Neal (2001), Annealed importance sampling, Statistics and Computing 11(2).

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        steps: number of temperatures K, spaced as the pilot's are. "auto" is m^2 log(1 / 0.9) for a pilot that needed
            m changes of temperature (each leaves 0.9), which makes the variance of the log-weights about 1 where the
            kernel forgets; it falls like 1 / K.
        sweeps: sweeps of the kernel at each temperature.
        pilot: particles of the pilot, at least 8.
        temperatures: use these, increasing and ending in 1, instead of the pilot's (then `steps` is not used).

    Raises:
        MotesError: the kernel needs gradients that the density has not, or makes particles depend on each other.

    >>> import math, torch, motes
    >>> from motes.density.annealing.ais import AnnealedImportanceSampling
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> run = motes.sample(AnnealedImportanceSampling(density), 512, seed=0, progress=False)
    >>> truth = math.log(0.09 / 1.09) - 4 / 1.09
    >>> abs(run.log_evidence - truth) < 4 * run.log_evidence_se < 1
    True
    """

    _: KW_ONLY
    steps: int | Literal["auto"] = "auto"
    sweeps: int = 1
    pilot: int = 256
    temperatures: tuple[float, ...] | None = None

    sources: ClassVar[tuple[Reference, ...]] = (cited("neal2001", "independent annealed weights"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mover.ensemble:
            raise MotesError(
                f"{type(self.mover).__name__} moves a particle by looking at the others, and annealed importance "
                "sampling needs independent particles: use another kernel, or motes.Tempering"
            )
        if self.steps != "auto" and (not isinstance(self.steps, int) or self.steps < 1):
            raise MotesError(f'steps must be "auto" or at least 1, not {self.steps!r}')
        if self.sweeps < 1 or self.pilot < 8:
            raise MotesError(f"need sweeps >= 1 and pilot >= 8, not sweeps={self.sweeps}, pilot={self.pilot}")
        if self.temperatures is not None:
            b = tuple(float(v) for v in self.temperatures)
            if not b or b[-1] != 1.0 or not all(0 <= x < y for x, y in zip((0.0, *b), b, strict=False)):
                raise MotesError(f"temperatures must increase from above 0 to 1, not {b}")
            object.__setattr__(self, "temperatures", b)

    def init(self, rng: Rng, n: int) -> Particles:
        ladder, spent, tail = self._plan(rng.at("pilot"))
        x = self.density.evaluate(self.density.sample(rng.at("prior"), n), self.mover.gradient)
        first = ladder[0]["temperature"]
        info = {"temperature": first, "evaluations": 1.0, "pilot_evaluations": spent / n}
        shared = {"ladder": ladder, "look": LastLook(1.0 + spent / n, tail).to_shared()}
        start = Particles.start(x, first * x["log_likelihood"], shared=shared, info=info)
        return self._looked(rng, start) if len(ladder) == 1 else start

    def _plan(self, rng: Rng) -> tuple[list[dict[str, Any]], float, float]:
        """The temperatures and the kernel's parameters at each, how many evaluations that took, and all changes of
        temperature, each times the mean excess of the pilot's log-likelihood there (see `last_look`): nothing is
        resampled, so a particle that stays in the upper tail is weighted by all of them."""
        if self.temperatures == (1.0,) or (self.steps == 1 and self.temperatures is None):
            return [{"temperature": 1.0}], 0.0, 0.0
        found: dict[int, float] = {}
        pilot = None
        try:
            for pilot in walk(Tempering(self.density, kernel=self.mover, conditional_ess=LEFT), self.pilot, seed=rng):
                found[len(pilot.particles.shared["ladder"]) - 1] = excess(pilot.particles.x["log_likelihood"])
        except AllWeightsZero as error:
            raise AllWeightsZero(
                f"the likelihood is zero at all {self.pilot} points that the pilot of annealed importance sampling "
                "drew from the prior, so no temperatures can be found: use a larger `pilot`, a prior closer to the "
                "posterior, or a likelihood that falls off outside of its support instead of ending"
            ) from error
        assert pilot is not None  # a walk has its start at the least
        rungs = pilot.particles.shared["ladder"]
        at = [r["temperature"] for r in rungs[:-1]]  # the last one repeats 1, for the last move
        b = self.temperatures or spaced(at, self.steps)
        near = [nearest(at, v) + 1 for v in b]  # who was moved at a temperature is on the next rung
        ladder = [{"temperature": v, "parameters": rungs[i]["parameters"]} for v, i in zip(b, near, strict=True)]
        tail = sum((v - u) * found[i] for u, v, i in zip((0.0, *b), b, near, strict=False))
        return ladder, self.pilot * sum(r["evaluations"] for r in pilot.trace.rows), tail

    def must_resample(self, particles: Particles) -> bool:
        return False

    def step(self, rng: Rng, particles: Particles) -> Particles:
        ladder, kernel, t = particles.shared["ladder"], self.mover, particles.t
        now, parameters, then = ladder[t]["temperature"], ladder[t]["parameters"], ladder[t + 1]["temperature"]
        target = self.target(now)
        # a pilot that took care has found coordinates of its own
        law, state = mapped(target, particles.x, parameters.get("map"))
        parameters = {k: v for k, v in parameters.items() if k != "map"}
        state = kernel.enter(rng.at("enter"), law, state, parameters)
        rate, evaluations = 0.0, 0.0
        for k in range(self.sweeps):
            sweep = kernel.sweep(rng.at("sweep", inner=k), law, state, parameters)
            state, evaluations = sweep.state, evaluations + sweep.evaluations
            rate += float(sweep.acceptance.mean()) / self.sweeps
        state = law.leave(state) if isinstance(law, NonCentred) else state
        info = {"temperature": then, "acceptance": rate, "evaluations": evaluations, **kernel.describe(parameters)}
        info |= target.told(self.sweeps * particles.n)
        look = LastLook(**particles.shared["look"]).after(evaluations, 0.0, state["log_likelihood"])
        shared = {**particles.shared, "look": look.to_shared()}
        after = particles.step(state, (then - now) * state["log_likelihood"], shared=shared, info=info)
        return self._looked(rng, after) if then == 1.0 else after

    def _looked(self, rng: Rng, particles: Particles) -> Particles:
        if not particles.log_weight.max() > -math.inf:
            return particles  # the engine reports it
        return self.looked(rng, particles, particles.x, normalise(particles.log_weight), torch.arange(particles.n))

    def done(self, particles: Particles) -> bool:
        return particles.t == len(particles.shared["ladder"]) - 1

    def standard_error(self, particles: Particles) -> StandardError:
        n, ess, method = particles.n, particles.ess, "independent weights"
        if n < 2 or ess < FEW:
            reason = (
                f"the weights are worth {ess:.1f} particles, too few to tell their spread: use more temperatures "
                "(`steps`), more sweeps or more particles"
            )
            return StandardError(math.nan, method, reason, means=reason)
        if (shape := pareto_shape(particles.log_weight)) > HEAVY:
            reason = (
                f"the weights have a tail of shape {shape:.2f}, above {HEAVY}: the largest decide, and larger ones may "
                "have been missed. Use more temperatures (`steps`), more sweeps, or motes.Tempering"
            )
            return StandardError(math.nan, method, reason, means=reason)
        return StandardError(math.sqrt(max(n / ess - 1, 0.0) / (n - 1)), method, freedom=max(ess - 1, 1.0))

    def progress(self, particles: Particles) -> float:
        return (particles.t + 1) / len(particles.shared["ladder"])


def spaced(pilot: list[float], steps: int | Literal["auto"]) -> list[float]:
    """`steps` temperatures that end in 1, as dense as those of the pilot (increasing, ending in 1)."""
    m = len(pilot)
    count = max(m, math.ceil(m * m * -math.log(LEFT))) if steps == "auto" else steps
    knots, out = [0.0, *pilot], []
    for k in range(1, count):
        j, part = divmod(k * m, count)
        out.append(knots[j] + (knots[j + 1] - knots[j]) * part / count)
    return [*out, 1.0]


def nearest(values: list[float], v: float) -> int:
    """The place of the one of the increasing positive `values` whose logarithm is closest to that of `v`."""
    i = bisect_left(values, v)
    if i == 0 or i == len(values):
        return min(i, len(values) - 1)
    return i if values[i] * values[i - 1] < v * v else i - 1
