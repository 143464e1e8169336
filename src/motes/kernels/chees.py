"""Hamiltonian Monte Carlo that learns how long its trajectories should be from many chains."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.length import LENGTHS, ideal_length, jittered_steps, learnt, rescaled, seen
from motes.kernels.adaptation.scale import fit_scale
from motes.kernels.adaptation.step_size import UNTRIED, next_step_size, reopened
from motes.kernels.dynamics.leapfrog import ended, leapfrog
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels, mean_acceptance
from motes.rng import Rng

SLOPE = 0.49
"""How fast the harmonic mean acceptance falls with the logarithm of the step, near 0.8.

For energy errors N(-s^2/2, s^2) it is 1 / (Phi(-s/2) + exp(s^2) Phi(3s/2)), and s grows like the step squared."""

CAREFUL = 0.97
"""The acceptance that is wanted where many trajectories run off."""


@kernels.register
@dataclass(frozen=True)
class ChEES(Kernel):
    """Hamiltonian Monte Carlo whose trajectory length maximises the change in the estimator of the expected square.

    Leapfrog steps in the coordinates z in which the population is white, all particles with the same step h and the
    same number of steps ceil(u T / h). The jitter u of a sweep is a van der Corput number of its address, shifted at
    random, so it goes on when the parameters are frozen. T maximises

        ChEES(T) = 1/4 E (|z' - m'|^2 - |z - m|^2)^2,   d ChEES / d log T = E t (|z'-m'|^2 - |z-m|^2) (z'-m').v',

    t = u T, by Adam on log T; the mean is over proposals with their acceptance probabilities. On a Gaussian with
    standard deviation 1 the optimum is T = 2.2 (2.25 with all jitter, pi/2 without). The step makes the harmonic
    mean of the acceptance .8 (see `kernels.step_size`). Exact; adaptation biases by O(1/N). Each sweep is reversible,
    but sweeps differ in length, so a sequence of them is not.

    References:
        Hoffman, Radul & Sountsov (2021), An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte
        Carlo, AISTATS.

    Args:
        acceptance: the wanted harmonic mean acceptance. The source has .651, which is best on Gaussians, by a little;
            where the density narrows (a hierarchy, stochastic volatility) more gives several times as many effective
            draws. So it is raised, towards .97, by trajectories that run off while the others are accepted.
        jitter: u is uniform in 1 - jitter to 1. With less, white populations need fewer gradients (at 0.75 a sixth less
            than at 1 on a Gaussian); with more, directions that are shorter than the longest are safer from resonance.
        rate: of Adam, on log T.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
        max_steps: the most leapfrog steps of a trajectory.

    Raises:
        ValueError: a knob is outside of its range.
    """

    acceptance: float = 0.8
    _: KW_ONLY
    jitter: float = 0.75
    rate: float = 0.025
    scale: str = "auto"
    max_steps: int = 512

    name: ClassVar[str] = "chees"
    gradient: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("hoffman2021", "the length of ChEES trajectories"),)

    def __post_init__(self) -> None:
        if not (0 < self.acceptance < 1 and 0 <= self.jitter <= 1 and self.rate > 0 and self.max_steps >= 1):
            raise MotesError(
                f"ChEES needs 0 < acceptance < 1, 0 <= jitter <= 1, rate > 0 and max_steps >= 1, not {self}"
            )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # on a standard Gaussian the energy error has standard deviation sqrt(d) h^2 / 4, and should have 0.38
        return {
            "scale": torch.ones(2, d, dtype=dtype),
            "step_size": 1.23 * d**-0.25,
            "length": ideal_length(self.jitter),
            "wanted": self.acceptance,
            **UNTRIED,
            **LENGTHS,
        }

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x = state["position"]
        scale = fit_scale(x, weight, self.scale, parameters["scale"])
        return rescaled(reopened(parameters), scale, x, weight, ideal_length(self.jitter))

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        # in equilibrium 0.1 is rare; below it are particles from far out, and a few of them shall not rule all
        a, mean, wanted = (
            sweep.acceptance.to(weight).clamp(min=0.1),
            mean_acceptance(sweep, weight),
            parameters["wanted"],
        )
        if sweep.diverged is not None and mean > 0.5:
            wanted += max(0.0, CAREFUL - wanted) * min(1.0, 5 * float(weight @ sweep.diverged.to(weight)))
        error = (1 / float(weight @ a.reciprocal()) - wanted) / SLOPE
        parameters = next_step_size({**parameters, "wanted": wanted}, mean, error)
        return learnt(parameters, sweep, weight, self.rate)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, h = state["position"], parameters["step_size"]
        steps = jittered_steps(rng, parameters, self.jitter, self.max_steps)
        v = rng.at("momentum").normal(tuple(x.shape), dtype=x.dtype)
        end = leapfrog(target, state, v, torch.full((len(x), 1), h, dtype=x.dtype), steps, parameters["scale"])
        what = seen(x, end.state["position"], end.velocity, steps * h)
        return ended(rng, end, state, steps, what)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"], "length": parameters["length"]}
