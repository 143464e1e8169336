"""Underdamped Langevin dynamics without a Metropolis test, by the splitting BAOAB."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import pull, scaled
from motes.kernels.adaptation.step_size import steadied
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class BAOAB(Preconditioned):
    """Unadjusted underdamped Langevin by the splitting BAOAB, whose positions are exact on Gaussians.

    In the coordinates in which the population is white, with velocities v that the particles carry on, a sweep is
    half a kick (B, v += h/2 g), half a drift (A, x += h/2 v), the friction (O, v <- c v + sqrt(1 - c^2) u with
    c = exp(-friction h)), half a drift and half a kick; one gradient each. Not exact: the error of expectations is
    O(h^2). On a Gaussian with variance 1 positions have variance 1 for every h < 2, velocities 1 - h^2/4; with much
    friction the error of positions is O(h^4) for every target.

    The step is learnt from the energy errors of the steps, less what the friction does to the kinetic energy. On a
    Gaussian a B and an A together make h^2/8 (v^2 - x^2) a coordinate, and a whole step has an error with variance
    h^4/16 (2 - c^2 - h^2/2 (1 - c^2) - (1 - h^2/4 (1 + c))^2), about h^5 (2 friction + h) / 16.
    The acceptance is 1; a step that leaves the support (density 0) is not made, and turns its velocity round.

    References:
        Leimkuhler & Matthews (2013), Rational construction of stochastic numerical methods for molecular sampling,
        Applied Mathematics Research eXpress 2013(1).
        Leimkuhler, Matthews & Stoltz (2016), The computation of averages from equilibrium and nonequilibrium Langevin
        molecular dynamics, IMA Journal of Numerical Analysis 36(1).

    Args:
        friction: how fast velocities are forgotten, in units of the population (2 is critical for a Gaussian).
        error: the wanted variance of a step's energy error, nats^2 a dimension.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `friction` or `error` is not positive.
    """

    friction: float = 1.0
    _: KW_ONLY
    error: float = 1e-3
    scale: str = "auto"

    name: ClassVar[str] = "baoab"
    gradient: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("leimkuhler2013", "the unadjusted underdamped kernel"),)

    def __post_init__(self) -> None:
        if not (self.friction > 0 and self.error > 0):
            raise MotesError(f"BAOAB needs friction > 0 and error > 0, not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        low, high = 0.0, 1.0
        for _ in range(50):
            h = 0.5 * (low + high)
            low, high = (h, high) if self._variance(h) < self.error else (low, h)
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": high}

    def _variance(self, h: float) -> float:
        """Of the energy error of a coordinate that is standard Gaussian."""
        c = math.exp(-self.friction * h)
        return h**4 / 16 * (2 - c * c - h * h / 2 * (1 - c * c) - (1 - h * h / 4 * (1 + c)) ** 2)

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        x = state["position"]
        return {**state, "velocity": rng.at("velocity").normal(tuple(x.shape), dtype=x.dtype)}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return steadied(parameters, sweep.seen["error"], weight, self.error)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, v, scale, h = state["position"], state["velocity"], parameters["scale"], parameters["step_size"]
        keep = math.exp(-self.friction * h)
        noise = rng.at("noise").normal(tuple(x.shape), dtype=x.dtype)
        before = torch.add(v, pull(target.gradient(state), scale), alpha=0.5 * h)
        after = torch.add(keep * before, noise, alpha=math.sqrt(1 - keep * keep))
        there = target.evaluate(torch.add(x, scaled(before + after, scale), alpha=0.5 * h), True)
        ahead = torch.add(after, pull(target.gradient(there), scale), alpha=0.5 * h)
        now = target.log_density(there)
        heat = v.square().sum(1) - before.square().sum(1) + after.square().sum(1) - ahead.square().sum(1)
        inside = now > -math.inf
        moved = select(inside, {**there, "velocity": ahead}, {**state, "velocity": -v})
        error = now - target.log_density(state) + 0.5 * heat
        return Sweep(moved, inside.to(torch.float64), 1, seen={"error": error})
