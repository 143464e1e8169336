"""Random-walk Metropolis with the population's covariance."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, mean_acceptance, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class RandomWalk(Kernel):
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
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "roberts1997",
            "Roberts, Gelman, Gilks",
            1997,
            "Weak convergence and optimal scaling of random walk Metropolis algorithms",
            "Annals of Applied Probability 7(1)",
            "the random-walk kernel's step size",
        ),
    )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": 2.38 / math.sqrt(d)}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        return {**parameters, "scale": fit_scale(state["position"], weight, self.scale, parameters["scale"])}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        acceptance = mean_acceptance(sweep, weight)
        wanted = self.acceptance or 0.234 + 0.2 / parameters["scale"].shape[1]
        quantile = NormalDist().inv_cdf
        ratio = quantile(wanted / 2) / quantile(min(max(acceptance, 1e-3), 0.999) / 2)
        return {**parameters, "step_size": parameters["step_size"] * min(max(ratio, 0.5), 2.0)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x = state["position"]
        noise = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
        proposal = target.evaluate(x + parameters["step_size"] * scaled(noise, parameters["scale"]), False)
        acceptance, accept = accepted(rng, target.log_density(proposal) - target.log_density(state))
        return Sweep(select(accept, proposal, state), acceptance, 1)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"]}
