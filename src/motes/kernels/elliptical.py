"""Elliptical slice sampling around a Gaussian that is fitted to the population."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import by_half, scaled, whiten
from motes.kernels.dynamics.bracket import shrink
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class EllipticalSlice(Preconditioned):
    """Elliptical slice sampling: around an ellipse through a draw from a Gaussian, to where the slice holds.

    The target is written as N(x; m, S S^T) L(x), with m and S S^T the mean and covariance of the population (whatever
    they are, L makes up for it). With u ~ N(0, I), a place on the ellipse x' = m + (x - m) cos t + S u sin t is taken
    where log L(x') > log L(x) + log(uniform); the bracket of angles shrinks towards t = 0 until there is one. Nothing
    is ever rejected, and no step size is tuned. Exact; a Gaussian target takes one evaluation and gives an independent
    angle. Where the target has heavier tails than the Gaussian, it is slow to come back from them.

    References:
        Murray, Adams & MacKay (2010), Elliptical slice sampling, AISTATS, figure 2.
        Nishihara, Murray & Adams (2014), Parallel MCMC with generalized elliptical slice sampling, JMLR 15.

    Args:
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).
    """

    scale: str = "auto"

    name: ClassVar[str] = "elliptical-slice"
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("murray2010", "the elliptical slice kernel"),
        cited("nishihara2014", "the Gaussian of the elliptical slice kernel"),
    )

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"mean": torch.zeros(2, d, dtype=dtype), "scale": torch.ones(2, d, dtype=dtype)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, n = state["position"], len(state["position"])
        mean = by_half(parameters["mean"], n)
        here = x - mean
        noise = rng.at("ellipse").normal(tuple(x.shape), dtype=x.dtype)
        there, white = scaled(noise, parameters["scale"]), whiten(here, parameters["scale"])
        # half the squared distance from the mean is a quadratic form of (cos t, sin t): minus the log of the Gaussian
        a, b, c = 0.5 * white.square().sum(1), torch.linalg.vecdot(white, noise), 0.5 * noise.square().sum(1)

        def ellipse(i: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            cos, sin = t.cos(), t.sin()
            position = mean[i] + cos[:, None] * here[i] + sin[:, None] * there[i]
            return position, cos.square() * a[i] + cos * sin * b[i] + sin.square() * c[i]

        level = target.log_density(state) + a - rng.at("level").exponential((n,))
        high = 2 * math.pi * rng.at("angle").uniform((n,), dtype=x.dtype)
        state, _, stayed, evaluations = shrink(rng, target, ellipse, state, level, high - 2 * math.pi, high)
        return Sweep(state, torch.ones(n, dtype=torch.float64), evaluations / n, stayed)
