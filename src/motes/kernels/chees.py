"""Hamiltonian Monte Carlo that learns how long its trajectories should be from many chains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, mean_acceptance, select
from motes.kernels.leapfrog import leapfrog
from motes.kernels.scale import fit_scale
from motes.kernels.step_size import UNTRIED, next_step_size
from motes.rng import Rng

SLOPE = 0.86
"""How fast the harmonic mean acceptance falls with the logarithm of the step, near 0.651.

For energy errors N(-s^2/2, s^2) it is 1 / (Phi(-s/2) + exp(s^2) Phi(3s/2)), and s grows like the step squared."""


@dataclass(frozen=True)
class ChEES(Kernel):
    """Hamiltonian Monte Carlo whose trajectory length maximises the change in the estimator of the expected square.

    Leapfrog steps in the coordinates z in which the population is white, all particles with the same step h and the
    same number of steps ceil(u T / h). The jitter u of a sweep is a van der Corput number of its address, shifted at
    random, so it goes on when the parameters are frozen. T maximises

        ChEES(T) = 1/4 E (|z' - m'|^2 - |z - m|^2)^2,   d ChEES / d log T = E t (|z'-m'|^2 - |z-m|^2) (z'-m').v',

    t = u T, by Adam on log T; the mean is over proposals with their acceptance probabilities. On a Gaussian with
    standard deviation 1 the optimum is T = 2.25, where tan 2T = 2T (pi/2 without jitter). The step makes the harmonic
    mean of the acceptance .651 (see `kernels.step_size`). Exact; adaptation biases by O(1/N). Each sweep is reversible,
    but sweeps differ in length, so a sequence of them is not.

    References:
        Hoffman, Radul & Sountsov (2021), An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte
        Carlo, AISTATS.

    Args:
        acceptance: the wanted harmonic mean acceptance.
        jitter: u is uniform in 1 - jitter to 1.
        rate: of Adam, on log T.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
        max_steps: the most leapfrog steps of a trajectory.

    Raises:
        ValueError: a knob is outside of its range.
    """

    acceptance: float = 0.651
    jitter: float = 1.0
    rate: float = 0.025
    scale: str = "auto"
    max_steps: int = 512

    name: ClassVar[str] = "chees"
    gradient: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "hoffman2021",
            "Hoffman, Radul, Sountsov",
            2021,
            "An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo",
            "AISTATS",
            "the length of ChEES trajectories",
        ),
    )

    def __post_init__(self) -> None:
        if not (0 < self.acceptance < 1 and 0 <= self.jitter <= 1 and self.rate > 0 and self.max_steps >= 1):
            raise ValueError(
                f"ChEES needs 0 < acceptance < 1, 0 <= jitter <= 1, rate > 0 and max_steps >= 1, not {self}"
            )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # on a standard Gaussian the energy error has standard deviation sqrt(d) h^2 / 4, and should have 0.59
        return {
            "scale": torch.ones(2, d, dtype=dtype),
            "step_size": 1.54 * d**-0.25,
            "length": self._ideal(),
            **UNTRIED,
            "level": 0.0,
            "square": 0.0,
            "sweeps": 0,
        }

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        old, x = parameters["scale"], state["position"]
        new = fit_scale(x, weight, self.scale, old)
        # the same length in the new coordinates, but near what a Gaussian population of their shape needs: on one,
        # ChEES has its first minimum at 1.7 times that
        now, before = _longest(x, weight, new), _longest(x, weight, old)
        if not (0 < now < math.inf and 0 < before < math.inf):
            return {**parameters, "scale": new}
        ideal = min(now, math.sqrt(x.shape[1])) * self._ideal()
        length = min(max(parameters["length"] * now / before, ideal / 2), ideal * 1.6)
        return {**parameters, "scale": new, "length": length}

    def _ideal(self) -> float:
        """The best length on a standard Gaussian: tan 2T = 2T with all jitter, pi / 2 without."""
        return math.pi / 2 + (2.2467 - math.pi / 2) * self.jitter

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return self._learn_length(self._learn_step(parameters, sweep, weight), sweep, weight)

    def _learn_step(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        # in equilibrium 0.1 is rare; below it are particles from far out, and a few of them shall not rule all
        a = sweep.acceptance.to(weight).clamp(min=0.1)
        error = (1 / float(weight @ a.reciprocal()) - self.acceptance) / SLOPE
        return next_step_size(parameters, mean_acceptance(sweep, weight), error)

    def _learn_length(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        level, slope = _criterion(sweep, weight, parameters["scale"])
        if not (0 < level < math.inf and 0 < abs(slope) < math.inf):
            return parameters
        n, level = parameters["sweeps"] + 1, math.log(level)
        # far out, before equilibrium, ChEES is larger by many orders of magnitude: a geometric mean forgets that soon
        level = 0.9 * parameters["level"] + 0.1 * level
        slope = min(max(slope / math.exp(level / (1 - 0.9**n)), -5.0), 5.0)
        square = 0.95 * parameters["square"] + 0.05 * slope**2
        # Adam without momentum
        change = self.rate * slope / math.sqrt(square / (1 - 0.95**n))
        length = parameters["length"] * math.exp(change)
        return {**parameters, "length": length, "level": level, "square": square, "sweeps": n}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, h = state["position"], parameters["step_size"]
        steps = self._steps(rng, parameters)
        v = rng.at("momentum").normal(tuple(x.shape), dtype=x.dtype)
        end = leapfrog(target, state, v, torch.full((len(x), 1), h, dtype=x.dtype), steps, parameters["scale"])
        acceptance, accept = accepted(rng, torch.where(end.kept, end.log_ratio, -math.inf))
        seen = {
            "before": x,
            "after": end.state["position"],
            "velocity": end.velocity,
            "length": torch.full((len(x),), steps * h, dtype=x.dtype),
            "second": _second(len(x)),
        }
        return Sweep(select(accept, end.state, state), acceptance, steps, ~end.kept, seen)

    def _steps(self, rng: Rng, parameters: Parameters) -> int:
        shift = float(rng.at("jitter", step=0, inner=0).uniform(()))
        u = (_van_der_corput(rng.step + rng.inner) + shift) % 1.0
        length = parameters["length"] * (1 - self.jitter + self.jitter * u)
        # until the step has been too small and too large once, it may be so small that a trajectory has no end
        most = self.max_steps if parameters["turns"] else min(self.max_steps, 32)
        return min(max(1, math.ceil(length / parameters["step_size"])), most)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"], "length": parameters["length"]}


def _criterion(sweep: Sweep, weight: Tensor, scale: Tensor) -> tuple[float, float]:
    """ChEES at these lengths, and its derivative by log T; NaN if there is none."""
    x, y, v = (sweep.seen[k].to(weight) for k in ("before", "after", "velocity"))
    a = weight * sweep.acceptance.to(weight)
    if sweep.diverged is not None:
        a = torch.where(sweep.diverged, 0.0, a)
    total, second = a.sum(), sweep.seen["second"]
    if not float(total) > 0:
        return math.nan, math.nan
    before, after = _white(x - weight @ x, second, scale), _white(y - (a / total) @ y, second, scale)
    growth = after.square().sum(1) - before.square().sum(1)
    rise = sweep.seen["length"].to(weight) * growth * (after * v).sum(1)
    level, rise = (float(a @ torch.where(a > 0, f, 0.0)) / float(total) for f in (0.25 * growth.square(), rise))
    return level, rise


def _longest(x: Tensor, weight: Tensor, scale: Tensor) -> float:
    """The standard deviation of the white coordinates, the longest counting most: sqrt(tr C^2 / tr C)."""
    x = x.to(weight)
    z = _white(x - weight @ x, _second(len(x)), scale) * weight.sqrt()[:, None]
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    return float((gram.square().sum() / gram.trace()).sqrt())


def _second(n: int) -> Tensor:
    """(n,) which particles have the second of the two scales; `learn` may be given several sweeps at once."""
    return torch.arange(n) >= (n + 1) // 2


def _white(rows: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    """S^-1 r for every row r (N, d)."""
    out, scale = torch.empty_like(rows), scale.to(rows)
    for s, mine in zip(scale, (~second, second), strict=True):
        r = rows[mine]
        out[mine] = r / s if s.ndim == 1 else torch.linalg.solve_triangular(s, r.T, upper=False).T
    return out


def _van_der_corput(i: int) -> float:
    """The i-th number of the low-discrepancy sequence in base 2: the bits of i behind the point, mirrored."""
    return int(f"{i:b}"[::-1], 2) / 2 ** i.bit_length()
