"""Random-walk Metropolis with the population's covariance."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.kernels.adaptation.acceptance import rescaled_step
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import scaled
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, mean_acceptance, metropolis
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class RandomWalk(Preconditioned):
    """Random-walk Metropolis: propose x + h S u with u standard normal and S S^T the population's covariance.

    The step h follows the acceptance a of the last sweep through a = 2 Phi(-k h) (Roberts, Gelman & Gilks 1997,
    corollary 1.2): one sweep gives k, and k gives the h of the wanted acceptance. Adaptation biases by O(1/N).

    References:
        Roberts, Gelman & Gilks (1997), Weak convergence and optimal scaling of random walk Metropolis algorithms,
        Annals of Applied Probability 7(1).

    Args:
        acceptance: the wanted mean acceptance; None is 0.234 + 0.2 / d.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
    """

    acceptance: float | None = None
    _: KW_ONLY
    scale: str = "auto"

    name: ClassVar[str] = "random-walk"
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("roberts1997", "the random-walk kernel's step size"),)

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": 2.38 / math.sqrt(d)}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        wanted = self.acceptance or 0.234 + 0.2 / parameters["scale"].shape[1]
        return rescaled_step(parameters, mean_acceptance(sweep, weight), wanted, 1)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x = state["position"]
        noise = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
        proposal = target.evaluate(x + parameters["step_size"] * scaled(noise, parameters["scale"]), False)
        return metropolis(rng, target, proposal, state)
