"""Adaptive tempering from the prior to the posterior."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.unearned import unearned
from motes.core.files.settings import short
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.run import Run
from motes.core.temperature import SHAPE, next_temperature
from motes.core.weights import normalise
from motes.density.annealing.annealed import Annealed, check_shares, climbed, risen
from motes.density.annealing.care import ADAPTATION, FINE, HIGH, SHARE, Care
from motes.errors import MotesError
from motes.kernels import Moved, State, move
from motes.kernels.stationarity.dependence import FAINT, Dependence, find_dependence
from motes.kernels.stationarity.drift import CERTAIN, FEWEST, MeanDrift, drift_between, effective_families
from motes.kernels.stationarity.noncentred import NonCentred
from motes.kernels.stationarity.probe import cost, probe
from motes.kernels.stationarity.settle import mapped, settle
from motes.laws.compiling import whether_compiled
from motes.laws.improper import improper
from motes.laws.tempered import Tempered
from motes.rng import Rng

LONG = 32
"""A run looks whether its law is improper after this number of steps, twice that, and so on."""
Ladder = list[dict[str, Any]]
"""What an adaptive run chose at each time: "temperature", and of the move that led there "sweeps" and "parameters"."""


REFERENCES = (cited("delmoral2006", "tempering"), cited("zhou2016", "the choice of temperatures"))


@dataclass(frozen=True)
class Tempering(Annealed):
    """Sequential Monte Carlo from the prior to the posterior through the laws prior x likelihood^temperature.

    The particles are drawn from the prior. Each step moves them by a Markov kernel that leaves the law at the current
    temperature invariant, then raises the temperature until the conditional effective sample size is
    `conditional_ess` of what it was, or less far where the largest weights fall off slowly, and reweights. It ends with
    temperature 1 and one last move. The mean weight estimates the evidence.

    Temperatures, step sizes, scales and the number of sweeps are chosen from the particles themselves, which biases
    the evidence (not its logarithm only) by a term of order d/N; in 64 dimensions and more the error bar carries it.
    `freeze` gives the same model with all choices fixed to those of a finished run: with another seed its evidence is
    unbiased for any N.

    References:
        Del Moral, Doucet & Jasra (2006), Sequential Monte Carlo samplers, JRSS B 68(3).
        Zhou, Johansen & Aston (2016), Toward automatic model comparison, JCGS 25(3), section 3.3.
        Beskos, Jasra, Kantas & Thiery (2016), On the convergence of adaptive sequential Monte Carlo methods, AAP 26(2).

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        conditional_ess: the fraction of the effective sample size that one change of temperature leaves, in (0, 1).
        sweeps: sweeps of the kernel a step; "auto" goes on until the particles have forgotten their start.
        max_correlation: the correlation with the start at which "auto" stops. What particles still remember biases the
            evidence downwards while kernels adapt (by half a standard error at 0.5 in 30 dimensions), and makes it vary
            more.
        ladder: temperatures, sweeps and kernel parameters of an earlier run, see `freeze`.
        careful: whether to take finer steps and go on moving until the means no longer drift, in coordinates in which
            no scale depends on another parameter. "auto" begins so anew, once, where a run finds scales that depend on
            other parameters, or means that its moves, or steps of other lengths at the end, have shifted by more than
            chance allows. What still drifts after that has no error bar.

    Raises:
        MotesError: the kernel needs gradients that the density has not, the temperature can rise no further, or a run
            that goes on finds that the posterior is improper.

    >>> import torch, motes
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> model = motes.Tempering(motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal))
    >>> run = motes.sample(model, 256, seed=0, progress=False)
    >>> bool((run.mean().value - 2 / 1.09).abs().max() < 0.2)
    True
    """

    _: KW_ONLY
    conditional_ess: float = 0.9
    sweeps: int | Literal["auto"] = "auto"
    max_correlation: float = 0.1
    ladder: Ladder | None = None
    careful: bool | Literal["auto"] = "auto"

    sources: ClassVar[tuple[Reference, ...]] = REFERENCES

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self.conditional_ess, self.max_correlation)
        if self.sweeps != "auto" and (not isinstance(self.sweeps, int) or self.sweeps < 1):
            raise MotesError(f'sweeps must be "auto" or a number of sweeps, not {self.sweeps!r}')

    def init(self, rng: Rng, n: int) -> Particles:
        return self._begin(rng, n, Care(careful=self.careful is True))

    def _begin(self, rng: Rng, n: int, care: Care, spent: float = 0.0) -> Particles:
        """`n` draws from the prior, at the first temperature, after a step that cost `spent` evaluations a particle."""
        z = self.density.sample(rng.at("prior"), n)
        x = self.density.evaluate(z, self.mover.gradient)
        flat = torch.zeros(n, dtype=torch.float64)
        temperature = self._next(flat, x["log_likelihood"], 0.0, 0, care)
        shared = {
            "temperature": temperature,
            "final": False,
            "compiled": None if self.density.compile == "auto" else self.density.compile,
            "kernel": self.mover.start(self.density.dim, z.dtype),
            "ladder": [{"temperature": temperature}],
            "care": care.to_shared(),
        }
        info = {"temperature": temperature, "evaluations": 1.0 + spent, **_moments(flat, x["log_likelihood"])}
        start = Particles.start(x, temperature * x["log_likelihood"], shared=shared, info=info)
        return replace(start, t=care.begun)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared, kernel, care = particles.shared, self.mover, Care(**particles.shared["care"])
        now, weight, t = shared["temperature"], normalise(particles.log_weight), particles.t + 1
        compiled, likelihood = shared["compiled"], particles.x["log_likelihood"]
        target = Tempered(self.density, now, bool(compiled))
        tested = effective_families(particles.ancestor, weight) > FEWEST and self.density.levels is None
        if tested and self._adapts and not care.careful and kernel.anywhere:
            dependence = find_dependence(particles.x["position"], weight)
            if dependence is not None:
                why = "scales depend on other parameters, as in a funnel"
                return self._begin(rng.at("again"), particles.n, care.again(t, why, dependence.to_json()))
        # chosen before the moves: the weights at the next temperature come from particles that have forgotten these
        temperature = 1.0 if now == 1.0 else self._next(particles.log_weight, likelihood, now, t, care)
        if care.careful and self.ladder is None:
            care = self._followed(care, particles.x["position"], weight)
        moved, found = self._move(rng, target, particles, weight, care)
        raised, new = temperature - now, moved.state["log_likelihood"]
        if temperature < 1.0:
            self._check_proper(moved.state["position"], now, t - care.begun)
        taken = spent = moved.info["evaluations"]
        care = care.after(taken, likelihood, new, weight, particles.ancestor, raised)
        if tested:
            if now == 1.0:
                last, looked = self._last_look(rng, target, moved.state, weight, particles.ancestor, care)
                spent += looked
                care = replace(care, drift=[last.largest, last.limit])
            trouble = care.trouble(found)
            if trouble and self._adapts and not care.careful:
                return self._begin(rng.at("again"), particles.n, care.again(t, trouble), spent)
            care = replace(care, unsettled=care.unsettled + (found.largest > CERTAIN))
        rung = {"temperature": temperature, "sweeps": moved.sweeps, "parameters": moved.used}
        z = moved.state["position"]
        shared = {
            "temperature": temperature,
            "final": now == 1.0,
            "compiled": whether_compiled(self.density, compiled, z, kernel.gradient, taken, now, temperature),
            "kernel": moved.parameters,
            "ladder": [*shared["ladder"], rung],
            "care": care.to_shared(),
        }
        return particles.step(
            moved.state,
            raised * new if raised else torch.zeros_like(new),
            shared=shared,
            info={
                "temperature": temperature,
                **moved.info,
                "evaluations": spent,
                "compiled": float(bool(compiled)),
                **_moments(particles.log_weight, new),
                **({"drift": found.largest} if tested else {}),
            },
        )

    @property
    def _adapts(self) -> bool:
        """Whether a run may begin anew with more care."""
        return self.ladder is None and self.careful != False  # noqa: E712

    def _move(
        self, rng: Rng, target: Tempered, particles: Particles, weight: Tensor, care: Care
    ) -> tuple[Moved, MeanDrift]:
        """Move the particles at the present temperature, and say how far that moved their means."""
        kernel, x, shared = self.mover, particles.x, particles.shared
        sweeps = self.sweeps
        correlation = max(self.max_correlation, particles.n**-0.5)  # below is noise
        if care.careful and self.ladder is None:
            dependence = None if care.dependence is None else Dependence.from_json(care.dependence)
            return settle(
                kernel, rng, target, x, weight, particles.ancestor, shared["kernel"], dependence,
                sweeps=sweeps, max_correlation=correlation,
            )  # fmt: skip
        adapt, law, inner = self.ladder is None, target, x
        if self.ladder is None:
            parameters = kernel.fit(shared["kernel"], target, x, weight)
        else:
            rung = self.ladder[particles.t + 1]
            parameters, sweeps = {k: v for k, v in rung["parameters"].items() if k != "map"}, rung["sweeps"]
            law, inner = mapped(target, x, rung["parameters"].get("map"))
        moved = move(
            kernel, rng, law, inner, weight, parameters, sweeps=sweeps, max_correlation=correlation, adapt=adapt
        )
        if isinstance(law, NonCentred):
            moved = replace(moved, state=law.leave(moved.state))
        return moved, drift_between(target, x, moved.state, weight, particles.ancestor)

    def _followed(self, care: Care, position: Tensor, weight: Tensor) -> Care:
        """With the dependence of scales that the present population shows, where it shows more than was known."""
        if not self.mover.anywhere or self.density.levels is not None:
            return care
        found = find_dependence(position, weight, FAINT)
        if care.dependence is not None:
            found = Dependence.from_json(care.dependence).wider(found)
        return replace(care, dependence=None if found is None else found.to_json())

    def _last_look(
        self, rng: Rng, target: Tempered, x: State, weight: Tensor, family: Tensor, care: Care
    ) -> tuple[MeanDrift, int]:
        """How far other steps move the means at temperature 1, and what that cost; what they do is not kept."""
        gradient, most = self.mover.gradient, int(SHARE * care.evaluations)
        return probe(rng.at("probe"), target, x, weight, family, most), cost(most, gradient)

    def restarted(self, particles: Particles) -> bool:
        care = particles.shared["care"]
        return care["begun"] == particles.t > 0

    def remarks(self, particles: Particles) -> list[str]:
        own: list[str] = Care(**particles.shared["care"]).remarks() if particles.shared["final"] else []
        if particles.shared["final"] and (flat := unearned(particles, particles.log_weight, "log-likelihood")):
            own.append(Remark(flat.reason, ALL, withholds=True))
        return [*super().remarks(particles), *own]

    def systematic(self, particles: Particles) -> Systematic | None:
        d, shared = self.density.dim, particles.shared
        learns = self.ladder is None and d >= HIGH and self.density.levels is None
        learnt = ADAPTATION * math.sqrt(d) * len(shared["ladder"]) / particles.n if learns else 0.0
        return Care(**shared["care"]).systematic(learnt)

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def _next(self, log_weight: Tensor, log_likelihood: Tensor, now: float, t: int, care: Care) -> float:
        """The temperature after `now`: from the ladder, or by the conditional effective sample size."""
        if self.ladder is not None:
            return self.ladder[t]["temperature"]
        if not ((log_weight > -math.inf) & (log_likelihood > -math.inf)).any():
            return 1.0  # nothing is left to choose by; the engine reports it
        conditional_ess = 1 - FINE * (1 - self.conditional_ess) if care.careful else self.conditional_ess
        temperature = next_temperature(log_weight, log_likelihood, now, conditional_ess, SHAPE)
        return risen(temperature, now, t)

    def _check_proper(self, position: Tensor, temperature: float, steps: int) -> None:
        """Raise MotesError where a run would go on without end, since its law has no normaliser.

        Particles of such a law run off, the faster the higher the temperature, which then rises ever less.
        """
        if steps < LONG or steps & (steps - 1):
            return
        said = improper(self.density, position)
        if said:
            raise MotesError(f"at temperature {temperature:.3g}, after {steps} steps, {said[0]}")

    def freeze(self, run: Run) -> Tempering:
        """The same model with temperatures, sweeps and kernel parameters fixed to those that `run` found.

        A run of it with another seed estimates the evidence without bias.

        Raises:
            MotesError: the run has not ended, it is of another kind or dimension, or its kernel looks at the other
                particles, so that its weights would not be unbiased.
        """
        if self.mover.ensemble:
            raise MotesError(
                f"{type(self.mover).__name__} moves a particle by where the others are, and with copies among them "
                "that biases the evidence: freeze a run with another kernel"
            )
        run = run.alone("freeze")
        shared = run.particles.shared
        if not isinstance(shared, dict) or "ladder" not in shared:
            raise MotesError(f"freeze needs a finished Tempering run, not one of {run.setup['model']}")
        found, mine = run.setup["settings"], self.settings()
        if any(found.get(k) != mine[k] for k in ("kernel", "density")):
            raise MotesError(f"the run has kernel {found.get('kernel')} on {found.get('density')}, unlike this model")
        if not shared["final"]:
            raise MotesError(f"the run stopped at temperature {shared['temperature']:.3g}: resume it, then freeze it")
        return replace(self, ladder=shared["ladder"])

    def score(self, particles: Particles) -> Tensor | None:
        return self.final_score(particles)

    def progress(self, particles: Particles) -> float:
        return climbed(particles)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "ladder": None if self.ladder is None else short(self.ladder)}


def _moments(log_weight: Tensor, log_likelihood: Tensor) -> dict[str, float]:
    """Mean and variance of the log-likelihood under the law at the temperature before it is raised."""
    weight = torch.softmax(log_weight, 0)
    mean = float(weight @ torch.where(weight > 0, log_likelihood, 0.0))
    if not math.isfinite(mean):
        return {"log_likelihood_mean": mean, "log_likelihood_variance": math.inf}
    off = torch.where(weight > 0, log_likelihood - mean, 0.0)
    return {"log_likelihood_mean": mean, "log_likelihood_variance": float(weight @ off.square())}
