"""The unadjusted Langevin algorithm: no rejections, and a bias that the step size sets."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.step_size import steadied
from motes.kernels.dynamics.langevin import langevin
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class ULA(Preconditioned):
    """Unadjusted Langevin: x' = x + t S S^T grad log p(x) + sqrt(2 t) S u, which samples a law near the target.

    u is standard normal and S S^T the population's covariance. Not exact: on a Gaussian the variance in the coordinates
    in which the population is white is 1 / (1 - t/2) instead of 1, so with d coordinates the squared Wasserstein
    distance is d (1 / sqrt(1 - t/2) - 1)^2. It grows with d, but what it does to a few coordinates of a nearly
    independent law does not (Chen, Cheng, Niles-Weed & Weare 2024), so the step is chosen by the error of one
    variance: t = 2 e / (1 + e) for an error e. For other targets it is learnt from the energy errors of the steps
    (what a Metropolis test would look at): their variance over d is t^3 / (2 - t) for a Gaussian at this step, and is
    made to be that. The acceptance is 1. A step that leaves the support (density 0) is not made.

    References:
        Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their discrete approximations,
        Bernoulli 2(4).
        Durmus & Moulines (2019), High-dimensional Bayesian inference via the unadjusted Langevin algorithm,
        Bernoulli 25(4A).
        Chen, Cheng, Niles-Weed & Weare (2024), Convergence of unadjusted Langevin in high dimensions: delocalization
        of bias, arXiv:2408.13115.

    Args:
        bias: the relative error of a variance that is put up with, as a Gaussian would have it; below 1.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `bias` is outside of (0, 1).
    """

    bias: float = 0.05
    _: KW_ONLY
    scale: str = "auto"

    name: ClassVar[str] = "ula"
    gradient: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("roberts1996", "the unadjusted Langevin kernel"),
        cited("chen2024", "the unadjusted Langevin kernel's bias"),
    )

    def __post_init__(self) -> None:
        if not 0 < self.bias < 1:
            raise MotesError(f"ULA needs a bias in (0, 1), not {self.bias}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # step_size is the standard deviation of the noise, sqrt(2 t), as for the kernels that adjust
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": math.sqrt(4 * self.bias / (1 + self.bias))}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        t = 2 * self.bias / (1 + self.bias)
        return steadied(parameters, sweep.seen["error"], weight, t**3 / (2 - t))

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale, h = state["position"], parameters["scale"], parameters["step_size"]
        u = rng.at("noise").normal(tuple(x.shape), dtype=x.dtype)
        there, _, heat = langevin(target, state, u, h, 0.5 * h, scale)
        now = target.log_density(there)
        error = now - target.log_density(state) + heat
        inside = now > -math.inf
        return Sweep(select(inside, there, state), inside.to(torch.float64), 1, seen={"error": error})
