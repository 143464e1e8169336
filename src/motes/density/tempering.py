"""Adaptive tempering from the prior to the posterior."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference
from motes.core.errors import MotesError
from motes.core.particles import Particles
from motes.core.run import Run
from motes.core.temperature import next_temperature
from motes.core.weights import normalise
from motes.density.annealed import Annealed
from motes.density.compiling import whether_compiled
from motes.density.tempered import Tempered
from motes.kernels import move
from motes.rng import Rng

Ladder = list[dict[str, Any]]
"""What an adaptive run chose at each time: "temperature", and of the move that led there "sweeps" and "parameters"."""


REFERENCES = (
    Reference(
        "delmoral2006",
        "Del Moral, Doucet, Jasra",
        2006,
        "Sequential Monte Carlo samplers",
        "Journal of the Royal Statistical Society B 68(3)",
        "tempering",
    ),
    Reference(
        "zhou2016",
        "Zhou, Johansen, Aston",
        2016,
        "Toward automatic model comparison: an adaptive sequential Monte Carlo approach",
        "Journal of Computational and Graphical Statistics 25(3)",
        "the choice of temperatures",
    ),
)


@dataclass(frozen=True)
class Tempering(Annealed):
    """Sequential Monte Carlo from the prior to the posterior through the laws prior x likelihood^temperature.

    The particles are drawn from the prior. Each step moves them by a Markov kernel that leaves the law at the current
    temperature invariant, then raises the temperature until the conditional effective sample size is `cess` of what it
    was, and reweights. It ends with temperature 1 and one last move. The mean weight estimates the evidence.

    Temperatures, step sizes, scales and the number of sweeps are chosen from the particles themselves, which biases
    the evidence (not its logarithm only) by a term of order 1/N. `freeze` gives the same model with all choices fixed
    to those of a finished run: with another seed its evidence is unbiased for any N.

    References:
        Del Moral, Doucet & Jasra (2006), Sequential Monte Carlo samplers, JRSS B 68(3).
        Zhou, Johansen & Aston (2016), Toward automatic model comparison, JCGS 25(3), section 3.3.
        Beskos, Jasra, Kantas & Thiery (2016), On the convergence of adaptive sequential Monte Carlo methods, AAP 26(2).

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        cess: the fraction of the effective sample size that one change of temperature leaves, in (0, 1).
        moves: sweeps of the kernel a step; "auto" goes on until the particles have forgotten their start.
        forget: the correlation with the start at which "auto" stops. What particles still remember biases the evidence
            downwards while kernels adapt (by half a standard error at 0.5 in 30 dimensions), and makes it vary more.
        ladder: temperatures, sweeps and kernel parameters of an earlier run, see `freeze`.

    Raises:
        MotesError: the kernel needs gradients that the density has not, or the temperature can rise no further.

    >>> import torch, motes
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> model = motes.Tempering(motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal))
    >>> run = motes.sample(model, 256, seed=0, progress=False)
    >>> bool((run.mean().value - 2 / 1.09).abs().max() < 0.2)
    True
    """

    cess: float = 0.9
    moves: int | Literal["auto"] = "auto"
    forget: float = 0.1
    ladder: Ladder | None = None

    sources: ClassVar[tuple[Reference, ...]] = REFERENCES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cess < 1 or not 0 < self.forget < 1:
            raise ValueError(f"cess and forget must lie in (0, 1), not {self.cess} and {self.forget}")
        if self.moves != "auto" and (not isinstance(self.moves, int) or self.moves < 1):
            raise ValueError(f'moves must be "auto" or a number of sweeps, not {self.moves!r}')

    def init(self, rng: Rng, n: int) -> Particles:
        z = self.density.sample(rng.at("prior"), n)
        x = self.density.evaluate(z, self.mover.gradient)
        flat = torch.zeros(n, dtype=torch.float64)
        temperature = self._next(flat, x["log_likelihood"], 0.0, 0)
        shared = {
            "temperature": temperature,
            "final": False,
            "compiled": None if self.density.compile == "auto" else self.density.compile,
            "kernel": self.mover.start(self.density.dim, z.dtype),
            "ladder": [{"temperature": temperature}],
        }
        info = {"temperature": temperature, "evaluations": 1.0, **_moments(flat, x["log_likelihood"])}
        return Particles.start(x, temperature * x["log_likelihood"], shared=shared, info=info)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared, kernel = particles.shared, self.mover
        now, weight, t = shared["temperature"], normalise(particles.log_weight), particles.t + 1
        compiled = shared["compiled"]
        target = Tempered(self.density, now, bool(compiled))
        if self.ladder is None:
            parameters = kernel.fit(shared["kernel"], target, particles.x, weight)
            sweeps = None if self.moves == "auto" else self.moves
        else:
            parameters, sweeps = self.ladder[t]["parameters"], self.ladder[t]["sweeps"]
        # chosen before the moves: the weights at the next temperature come from particles that have forgotten these
        likelihood = particles.x["log_likelihood"]
        temperature = 1.0 if now == 1.0 else self._next(particles.log_weight, likelihood, now, t)
        moved = move(
            kernel,
            rng,
            target,
            particles.x,
            weight,
            parameters,
            sweeps=sweeps,
            correlation=max(self.forget, particles.n**-0.5),  # below is noise
            adapt=self.ladder is None,
        )
        likelihood = moved.state["log_likelihood"]
        raised = temperature - now
        rung = {"temperature": temperature, "sweeps": moved.sweeps, "parameters": moved.used}
        z, taken = moved.state["position"], moved.info["evaluations"]
        shared = {
            "temperature": temperature,
            "final": now == 1.0,
            "compiled": whether_compiled(self.density, compiled, z, kernel.gradient, taken, now, temperature),
            "kernel": moved.parameters,
            "ladder": [*shared["ladder"], rung],
        }
        return particles.step(
            moved.state,
            raised * likelihood if raised else torch.zeros_like(likelihood),
            shared=shared,
            info={
                "temperature": temperature,
                **moved.info,
                "compiled": float(bool(compiled)),
                **_moments(particles.log_weight, likelihood),
            },
        )

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def _next(self, log_weight: Tensor, log_likelihood: Tensor, now: float, t: int) -> float:
        """The temperature after `now`: from the ladder, or by the conditional effective sample size."""
        if self.ladder is not None:
            return self.ladder[t]["temperature"]
        if not ((log_weight > -math.inf) & (log_likelihood > -math.inf)).any():
            return 1.0  # nothing is left to choose by; the engine reports it
        temperature = next_temperature(log_weight, log_likelihood, now, self.cess)
        if not temperature > now:
            raise MotesError(
                f"the temperature cannot rise above {now!r} at t={t}: the log-likelihood varies by more than its 16 "
                "digits hold; look for a likelihood of enormous size or a prior far too wide"
            )
        return temperature

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
        return Tempering(self.density, self.kernel, self.cess, self.moves, self.forget, shared["ladder"])

    def score(self, particles: Particles) -> Tensor | None:
        x, final = particles.x, particles.shared["final"]
        return x["prior_gradient"] + x["likelihood_gradient"] if final and self.mover.gradient else None

    def progress(self, particles: Particles) -> float:
        first, now = particles.shared["ladder"][0]["temperature"], particles.shared["temperature"]
        return 1.0 if now == 1.0 else 1.0 - math.log(now) / math.log(first)

    def settings(self) -> dict[str, Any]:
        return {
            "density": self.density.settings(),
            "kernel": repr(self.kernel),
            "cess": self.cess,
            "moves": self.moves,
            "forget": self.forget,
            "ladder": None if self.ladder is None else _digest(self.ladder),
        }


def _moments(log_weight: Tensor, log_likelihood: Tensor) -> dict[str, float]:
    """Mean and variance of the log-likelihood under the law at the temperature before it is raised."""
    weight = torch.softmax(log_weight, 0)
    mean = float(weight @ torch.where(weight > 0, log_likelihood, 0.0))
    if not math.isfinite(mean):
        return {"log_likelihood_mean": mean, "log_likelihood_variance": math.inf}
    off = torch.where(weight > 0, log_likelihood - mean, 0.0)
    return {"log_likelihood_mean": mean, "log_likelihood_variance": float(weight @ off.square())}


def _digest(ladder: Ladder) -> str:
    """What tells two ladders apart."""
    values = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in tree.leaves(ladder, "")}
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
