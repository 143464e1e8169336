"""Langevin proposals that are exact for Gaussians, so that their step need not shrink with the dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.kernels.adaptation.acceptance import farthest
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.dynamics.langevin import langevin
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, mean_acceptance, metropolis
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class PCNLangevin(Preconditioned):
    """Crank-Nicolson Langevin (infinite-dimensional MALA): a semi-implicit Langevin step, exact for a Gaussian.

    Relative to a Gaussian N(m, S S^T) with log p = -Phi + log N, the linear part of the Langevin equation is stepped
    implicitly: in w = S^-1 (x - m), w' = r w - (1 - r) grad Phi + b u, with u standard normal, r = sqrt(1 - b^2)
    (r = (2 - t) / (2 + t) for a time step t). As grad Phi = -g - w with g = S^T grad log p, mean and
    linear part cancel, and the scale S of the population is all that must be known:

        y = x + S ((1 - r) g(x) + b u),
        log ratio = log p(y) - log p(x) + |u|^2 / 2 - |u + c (g(x) + g(y))|^2 / 2,   c = (1 - r) / b.

    On N(m, S S^T) every proposal is accepted, and b = 1 makes it independent of the start. The acceptance is taken to
    be 2 Phi(-k b^3), one sweep gives k, and b maximises (1 - r) a(b), the squared distance that is moved. Exact;
    adaptation biases by O(1/N).

    References:
        Cotter, Roberts, Stuart & White (2013), MCMC methods for functions: modifying old algorithms to make them
        faster, Statistical Science 28(3).
        Beskos, Roberts, Stuart & Voss (2008), MCMC methods for diffusion bridges, Stochastics and Dynamics 8(3).

    Args:
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
    """

    scale: str = "auto"

    name: ClassVar[str] = "pcn-langevin"
    gradient: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (
        cited("cotter2013", "the Crank-Nicolson kernel"),
        cited("beskos2008", "Langevin proposals for a Gaussian reference"),
    )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # the wanted step of MALA on a standard Gaussian, on which this kernel itself would accept any
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": min(0.8, 1.65 * d ** (-1 / 6))}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return {**parameters, "step_size": farthest(parameters["step_size"], mean_acceptance(sweep, weight), 3)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale, b = state["position"], parameters["scale"], parameters["step_size"]
        drift = b / (1 + math.sqrt(1 - b * b))  # (1 - r) / b
        u = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
        proposal, _, tilt = langevin(target, state, u, b, drift, scale)
        return metropolis(rng, target, proposal, state, tilt=tilt)
