"""Preconditioned Crank-Nicolson: autoregressive proposals that leave a fitted Gaussian invariant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.kernels.adaptation.scale import by_half, fit_mean, fit_scale, scaled, whiten
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, mean_acceptance, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class PCN(Kernel):
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
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "cotter2013",
            "Cotter, Roberts, Stuart, White",
            2013,
            "MCMC methods for functions: modifying old algorithms to make them faster",
            "Statistical Science 28(3)",
            "the Crank-Nicolson kernel",
        ),
    )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        step = min(0.5, 2.38 / math.sqrt(d))
        return {"mean": torch.zeros(2, d, dtype=dtype), "scale": torch.ones(2, d, dtype=dtype), "step_size": step}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x = state["position"]
        mean = fit_mean(x, weight, parameters["mean"])
        return {**parameters, "mean": mean, "scale": fit_scale(x, weight, self.scale, parameters["scale"])}

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
        acceptance, accept = accepted(rng, target.log_density(proposal) - target.log_density(state) + tilt)
        return Sweep(select(accept, proposal, state), acceptance, 1)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": parameters["step_size"]}


def farthest(step: float, acceptance: float, power: int) -> float:
    """The b in (0, 1] with the largest mean squared move, if acceptance is 2 Phi(-k b^power) and was this at `step`.

    Accepted or not, a proposal is 2 (1 - sqrt(1 - b^2)) away from a standard Gaussian's draw in each dimension.
    """
    k = -NormalDist().inv_cdf(min(max(acceptance, 1e-3), 0.999) / 2) / step**power

    def moved(b: float) -> float:
        return b * b / (1 + math.sqrt(1 - b * b)) * math.erfc(k * b**power / math.sqrt(2))

    # steps of 9 % from 1 down, no farther than to a quarter or four times of what it was
    grid = [b for b in (2 ** (-j / 8) for j in range(200)) if step / 4 <= b <= 4 * step]
    return max(grid, key=moved)
