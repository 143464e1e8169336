"""Preconditioned Crank-Nicolson: autoregressive proposals that leave a fitted Gaussian invariant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.kernels.adaptation.acceptance import farthest
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import by_half, scaled, whiten
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, mean_acceptance, metropolis
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class PCN(Preconditioned):
    """Preconditioned Crank-Nicolson: propose y = m + sqrt(1 - b^2) (x - m) + b S u, reversible for N(m, S S^T).

    Mean m and scale S are those of the population (of the half that the particle is not in), u is standard normal. With
    w = S^-1 (x - m), what is left of the Metropolis ratio is the target's density relative to that Gaussian,

        log ratio = log p(y) - log p(x) + (|w_y|^2 - |w_x|^2) / 2,

    which does not change with the dimension where the two differ in a few directions only; on the Gaussian itself all
    is accepted. It holds for every fixed Gaussian. As b -> 0 this is a random walk, b = 1 is an independence sampler.
    The acceptance is taken to be 2 Phi(-k b), one sweep gives k, and b maximises (1 - sqrt(1 - b^2)) a(b), the squared
    distance that is moved. Tails heavier than the Gaussian's are left slowly. Exact; adaptation biases by O(1/N).

    References:
        Cotter, Roberts, Stuart & White (2013), MCMC methods for functions: modifying old algorithms to make them
        faster, Statistical Science 28(3).
        Neal (1998), Regression and classification using Gaussian process priors, Bayesian Statistics 6.

    Args:
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
    """

    scale: str = "auto"

    name: ClassVar[str] = "pcn"
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("cotter2013", "the Crank-Nicolson kernel"),)

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        step = min(0.5, 2.38 / math.sqrt(d))
        return {"mean": torch.zeros(2, d, dtype=dtype), "scale": torch.ones(2, d, dtype=dtype), "step_size": step}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return {**parameters, "step_size": farthest(parameters["step_size"], mean_acceptance(sweep, weight), 1)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, b, scale = state["position"], parameters["step_size"], parameters["scale"]
        mean = by_half(parameters["mean"], len(x))
        here = whiten(x - mean, scale)
        u = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
        there = torch.add(math.sqrt(1 - b * b) * here, u, alpha=b)
        proposal = target.evaluate(mean + scaled(there, scale), False)
        tilt = 0.5 * (there.square().sum(1) - here.square().sum(1))
        return metropolis(rng, target, proposal, state, tilt=tilt)
