"""Random-walk Metropolis with delayed acceptance: an emulator proposes, the target decides."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.emulator import fit_emulator, predict
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, mean_acceptance
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class DelayedAcceptance(Kernel):
    """Random walks on an emulator of the density, each of which the density itself then accepts or refuses.

    The emulator s is fitted to what the target said of the population: a quadratic and a Gaussian process. From x, k
    steps of random-walk Metropolis that leaves s invariant end in y, which is a proposal reversible with respect to s;
    it is accepted with probability min(1, p(y) s(x) / (p(x) s(y))). So p is invariant whatever s is, and it is
    evaluated once for k steps, and not at all where none of them was taken. With k = 1 it is delayed acceptance.

    The step follows the acceptance of the walk, and k that of the target: fewer steps where the emulator misleads. A
    target that is a density cut off at a level (nested sampling) has its parts emulated, and the cut made soft.
    Emulator, step and k come from the population, which biases by O(1/N).

    References:
        Christen & Fox (2005), Markov chain Monte Carlo using an approximation, JCGS 14(4) (k = 1).
        Liu (2001), Monte Carlo Strategies in Scientific Computing, section 9.4.3, Springer (the surrogate transition).

    Args:
        steps: the most steps of a walk, k.
        acceptance: the wanted mean acceptance of the walk, in (0, 1).
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `steps` below 1, or `acceptance` out of range.
    """

    steps: int = 16
    _: KW_ONLY
    acceptance: float = 0.3
    scale: str = "auto"

    name: ClassVar[str] = "delayed-acceptance"
    anywhere: ClassVar[bool] = False
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("christen2005", "delayed acceptance"),
        cited("liu2001", "proposals by walks on an emulator"),
    )

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.acceptance < 1:
            raise MotesError(f"steps must be at least 1 and acceptance in (0, 1), not {self.steps}, {self.acceptance}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        scale, step = torch.ones(2, d, dtype=dtype), 1.5 / math.sqrt(d)
        return {"scale": scale, "step_size": step, "steps": 1, "emulator": {}}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        scale = fit_scale(state["position"], weight, self.scale, parameters["scale"])
        alive = weight > 0
        emulator = fit_emulator(state["position"][alive], target.emulated(state)[alive])
        steps = parameters["steps"] if parameters["emulator"] or not emulator else self.steps
        return {**parameters, "scale": scale, "emulator": emulator, "steps": steps}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        walked, moved = float(weight @ sweep.seen["walked"]), sweep.seen["moved"].double() * weight
        part = float(moved.sum())
        believed = mean_acceptance(sweep, weight) / part if part > 0 else 1.0
        step, steps = parameters["step_size"], parameters["steps"]
        if parameters["emulator"]:
            step *= min(max(math.exp(walked - self.acceptance), 0.7), 1.4)
            if believed < 0.3 and steps > 1:
                steps = max(1, steps // 2)
            elif believed < 0.15:
                step *= 0.5
            elif believed > 0.6:
                steps = min(self.steps, 2 * steps)
        else:
            step *= min(max(math.exp(believed - self.acceptance), 0.7), 1.4)
        return {**parameters, "step_size": step, "steps": steps}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, n, emulator = state["position"], len(state["position"]), parameters["emulator"]
        first = here = _surrogate(target, emulator, x)
        y, walked = x, torch.zeros(n, dtype=torch.float64)
        moved = torch.zeros(n, dtype=torch.bool)
        for k in range(parameters["steps"]):
            inner = rng.at(f"walk-{k}")
            noise = scaled(inner.normal((n, x.shape[1]), dtype=x.dtype), parameters["scale"])
            there = y + parameters["step_size"] * noise
            value = _surrogate(target, emulator, there)
            probability, taken = accepted(inner, value - here)
            y, here = torch.where(taken[:, None], there, y), torch.where(taken, value, here)
            walked, moved = walked + probability / parameters["steps"], moved | taken
        who = moved.nonzero().flatten()
        acceptance, out = torch.zeros(n, dtype=torch.float64), state
        if len(who):
            part = target if len(who) == n else target.part(who)
            new = part.evaluate(y[who], False)
            ratio = torch.full((n,), -math.inf, dtype=torch.float64)
            gain = part.log_density(new) - target.log_density(state)[who]
            ratio[who] = gain.double() + first[who] - here[who]
            acceptance, accept = accepted(rng.at("target"), ratio)
            chosen = accept[who]
            out = {k: state[k].index_copy(0, who[chosen], v[chosen]) for k, v in new.items()}
        return Sweep(out, acceptance, len(who) / n, seen={"walked": walked, "moved": moved})

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"], "walk_steps": float(parameters["steps"])}


def _surrogate(target: Target, emulator: dict[str, Any], position: Tensor) -> Tensor:
    """(N,) the emulated log-density, finite; 0 while there is no emulator."""
    if not emulator:
        return torch.zeros(len(position), dtype=torch.float64)
    return target.from_emulated(predict(emulator, position), emulator["spread"])
