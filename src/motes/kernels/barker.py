"""The Barker proposal: the gradient decides only whether a coordinate goes up or down."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.acceptance import cubic_step, rescaled_step
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import pull, scaled
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, mean_acceptance, metropolis
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class Barker(Preconditioned):
    """Barker proposal: each coordinate's random step is turned round with a probability that its slope decides.

    In the coordinates in which the population is white, with g = S^T grad log p, the step of coordinate i is w = +-z,
    z ~ N(0, h^2), with probability 1 / (1 + exp(-w g_i(x))) of its sign, so that y = x + S w and

        log ratio = log p(y) - log p(x) + sum_i softplus(-w_i g_i(x)) - softplus(w_i g_i(y)).

    A step is never longer than its noise, however steep the density, so it bears a bad step size or scale better than
    MALA, at about half the speed where both are well tuned. Acceptance is a(h) = 2 Phi(-k h^3) as for MALA (Vogrinc,
    Livingstone & Zanella 2023); on a standard Gaussian the log ratio is w^3 x / 4 a coordinate to leading order, so
    k = sqrt(15 d) / 8 for small steps. Exact; adaptation biases by O(1/N).

    References:
        Livingstone & Zanella (2022), The Barker proposal: combining robustness and efficiency in gradient-based MCMC,
        Journal of the Royal Statistical Society B 84(2).
        Vogrinc, Livingstone & Zanella (2023), Optimal design of the Barker proposal and other locally balanced
        Metropolis-Hastings algorithms, Biometrika 110(3).

    Args:
        acceptance: the wanted mean acceptance. In the limit of many dimensions 0.574 moves farthest; on Gaussians in 1
            to 100 dimensions what does was found between 0.48 and 0.60.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `acceptance` is outside of (0, 1).
    """

    acceptance: float = 0.5
    _: KW_ONLY
    scale: str = "auto"

    name: ClassVar[str] = "barker"
    gradient: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (
        cited("livingstone2022", "the Barker kernel"),
        cited("vogrinc2023", "the Barker kernel's step size"),
    )

    def __post_init__(self) -> None:
        if not 0 < self.acceptance < 1:
            raise MotesError(f"Barker needs an acceptance in (0, 1), not {self.acceptance}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        step = cubic_step(math.sqrt(15 * d) / 8, self.acceptance)
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": step}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return rescaled_step(parameters, mean_acceptance(sweep, weight), self.acceptance, 3)

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale = state["position"], parameters["scale"]
        g = pull(target.gradient(state), scale)
        w = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype).mul_(parameters["step_size"])
        up = rng.at("sign").uniform(tuple(x.shape), dtype=x.dtype) < torch.sigmoid(w * g)
        w = torch.where(up, w, -w)
        proposal = target.evaluate(x + scaled(w, scale), True)
        tilt = (softplus(-w * g) - softplus(w * pull(target.gradient(proposal), scale))).sum(1)
        return metropolis(rng, target, proposal, state, tilt=tilt)
