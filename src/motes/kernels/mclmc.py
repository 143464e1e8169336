"""Microcanonical Langevin Monte Carlo, unadjusted."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.length import longest
from motes.kernels.adaptation.scale import fit_scale
from motes.kernels.adaptation.step_size import UNTRIED, next_step_size, reopened
from motes.kernels.dynamics.isokinetic import step, uniform_directions
from motes.kernels.dynamics.leapfrog import DIVERGED
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class MCLMC(Kernel):
    """Microcanonical Langevin Monte Carlo: unit speed, a gradient and noise that only turn, and no rejections.

    In the coordinates in which the population is white,

        dx = u dt,   du = (I - u u^T) (grad dt / (d - 1) + s dW),

    by leapfrog steps of size h whose turns are exact (see `kernels.isokinetic`), between half refreshments
    u <- (u + s w) / |u + s w|, w standard normal, s^2 = (exp(h / L) - 1) / d, so that directions are forgotten over the
    length L. A sweep takes as many steps as go into L. The stationary law differs from the target by O(h^2): on a
    Gaussian, variances are too large or too small by a share that grows with the energy errors of the steps. So h is
    chosen for a mean square energy error a step and dimension, which is measured and shown in the trace, and grows like
    h^6. A step that changes the energy by more than 1000 nats is not made and ends the
    particle's sweep.

    Biased, as `exact` says, and not reversible; for d of at least 2.

    References:
        Robnik, De Luca, Silverstein & Seljak (2023), Microcanonical Hamiltonian Monte Carlo, Journal of Machine
        Learning Research 24.
        Robnik & Seljak (2024), Fluctuation without dissipation: microcanonical Langevin Monte Carlo, AABI.

    Args:
        energy_error: the wanted mean square energy error of a step, for each dimension, in nats^2.
        length: L, in units of sqrt(d) times the population's longest standard deviation.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
        max_steps: the most steps of a sweep.

    Raises:
        ValueError: a knob is outside of its range.
        MotesError: d is 1, where there is no direction to turn to.
    """

    energy_error: float = 5e-4
    _: KW_ONLY
    length: float = 1.0
    scale: str = "auto"
    max_steps: int = 256

    name: ClassVar[str] = "mclmc"
    gradient: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("robnik2023", "the microcanonical Langevin kernel and its step size"),
    )

    def __post_init__(self) -> None:
        if not (self.energy_error > 0 and self.length > 0 and self.max_steps >= 1):
            raise MotesError(f"MCLMC needs energy_error > 0, length > 0 and max_steps >= 1, not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        if d < 2:
            raise MotesError("MCLMC needs at least 2 dimensions: in one there is no direction to turn to; use MALT")
        length = self.length * math.sqrt(d)
        return {
            "scale": torch.ones(2, d, dtype=dtype),
            "step_size": 0.4 * math.sqrt(d),
            "length": length,
            "error": 0.0,
            **UNTRIED,
        }

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        x = state["position"]
        return {**state, "direction": uniform_directions(rng.at("direction"), (len(x), x.shape[1]), x.dtype)}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x = state["position"]
        scale = fit_scale(x, weight, self.scale, parameters["scale"])
        length = self.length * math.sqrt(x.shape[1]) * longest(x, weight, scale)
        length = length if 0 < length < math.inf else parameters["length"]
        return {**reopened(parameters), "scale": scale, "length": length}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        error = sweep.seen["error"].to(weight)
        # a few particles from far out shall not rule all
        ratio = float(weight @ error.clamp(max=64 * self.energy_error)) / self.energy_error
        change = -math.log(max(ratio, 1e-12)) / 6
        mean = 0.0 if ratio > 32 else 1.0 if ratio < 1e-3 else 0.5  # off by more than a factor of 3, or not
        return {**next_step_size(parameters, mean, change), "error": float(weight @ error)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        h, length, scale = (parameters[k] for k in ("step_size", "length", "scale"))
        u, (n, d) = state["direction"], state["position"].shape
        noise = math.sqrt(math.expm1(min(h / length, 50.0)) / d)
        # as in `kernels.length`: few steps until the step has been too small and too large once
        most = self.max_steps if parameters["turns"] else min(self.max_steps, 32)
        steps = min(max(1, math.ceil(length / h)), most)
        here = {k: v for k, v in state.items() if k != "direction"}
        alive = torch.ones(n, dtype=torch.bool)
        error = torch.zeros_like(target.log_density(here))
        time = torch.full((n, 1), h, dtype=u.dtype)
        for i in range(steps):
            at = rng.at(f"step-{i}")
            u = _refreshed(at.at("before"), u, noise)
            there, new, change = step(target, here, u, time, scale)
            alive = alive & (change.abs() <= DIVERGED)
            error = error + torch.where(alive, change, DIVERGED).square()
            here, u = select(alive, there, here), torch.where(alive[:, None], new, u)
            time = torch.where(alive[:, None], time, 0.0)
            u = _refreshed(at.at("after"), u, noise)
        seen = {"error": error / (steps * d)}
        return Sweep({**here, "direction": u}, torch.ones_like(error), steps, ~alive, seen)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {k: parameters[k] for k in ("step_size", "length")} | {"energy_error": parameters["error"]}


def _refreshed(rng: Rng, u: Tensor, noise: float) -> Tensor:
    u = torch.add(u, rng.normal(tuple(u.shape), dtype=u.dtype), alpha=noise)
    return u / u.norm(dim=1, keepdim=True)
