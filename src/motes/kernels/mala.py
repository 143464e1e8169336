"""The Metropolis-adjusted Langevin algorithm with the population's covariance."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.acceptance import cubic_step, rescaled_step
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.dynamics.langevin import langevin
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, mean_acceptance, metropolis
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class MALA(Preconditioned):
    """Metropolis-adjusted Langevin: propose a step of the Langevin diffusion whose noise has the population's shape.

    With S S^T the population's covariance, g = S^T grad log p and u standard normal, the proposal is
    y = x + h S (u + h/2 g(x)), and

        log ratio = log p(y) - log p(x) + |u|^2 / 2 - |u + h/2 (g(x) + g(y))|^2 / 2,

    which is Hamiltonian Monte Carlo with one leapfrog step. Acceptance as a function of the step is a = 2 Phi(-k h^3)
    (Roberts & Rosenthal 1998, theorem 1): one sweep gives k, and k gives the h of the wanted acceptance. On a standard
    Gaussian the log ratio is h^2/8 (|x|^2 - |y|^2), of standard deviation h^3 sqrt(d) / 4, so k = sqrt(d) / 8. Exact;
    adaptation biases by O(1/N).

    References:
        Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their discrete approximations,
        Bernoulli 2(4).
        Roberts & Rosenthal (1998), Optimal scaling of discrete approximations to Langevin diffusions, Journal of the
        Royal Statistical Society B 60(1).

    Args:
        acceptance: the wanted mean acceptance; 0.574 moves farthest in many dimensions.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `acceptance` is outside of (0, 1).
    """

    acceptance: float = 0.574
    _: KW_ONLY
    scale: str = "auto"

    name: ClassVar[str] = "mala"
    gradient: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (cited("roberts1998", "the Langevin kernel's step size"),)

    def __post_init__(self) -> None:
        if not 0 < self.acceptance < 1:
            raise MotesError(f"MALA needs an acceptance in (0, 1), not {self.acceptance}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        step = cubic_step(math.sqrt(d) / 8, self.acceptance)
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": step}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return rescaled_step(parameters, mean_acceptance(sweep, weight), self.acceptance, 3)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale, h = state["position"], parameters["scale"], parameters["step_size"]
        u = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
        proposal, _, tilt = langevin(target, state, u, h, 0.5 * h, scale)
        return metropolis(rng, target, proposal, state, tilt=tilt)
