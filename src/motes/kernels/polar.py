"""Gibbsian polar slice sampling: the direction and the radius of a particle in turn."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.scale import by_half, fit_mean, fit_scale, scaled, whiten
from motes.kernels.dynamics.bracket import shrink, step_out
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class PolarSlice(Kernel):
    """Gibbsian polar slice sampling: at one random level, first a new direction, then a new radius.

    In the coordinates z = S^-1 (x - m) in which the population is white, z = r w with |w| = 1. The law of (log r, w)
    has density r^d p(x) against their uniform measure; a level is drawn below it. The direction goes along a random
    great circle, w cos t + v sin t, to where the density is above the level (the bracket of angles shrinks towards
    t = 0); then log r goes along a bracket that is stepped out from a random place around it. Nothing is rejected, and
    neither heavy tails nor the dimension slow down the radius. Exact; not reversible, since the radius comes second.

    The source slices r instead of log r, against r^(d-1) p(x). In log r a heavy tail is a slice of finite mean length,
    so that stepping out ends, and there is no edge at r = 0.

    References:
        Schar, Habeck & Rudolf (2023), Gibbsian polar slice sampling, ICML.
        Neal (2003), Slice sampling, Annals of Statistics 31(3), figures 3 and 5.

    Args:
        width: the first bracket of log r, in the population's standard deviations of it.
        steps: the most widths that the bracket is stepped out to.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: width or steps that are not positive.
        MotesError: in one dimension, where there are no great circles.
    """

    width: float = 3.0
    _: KW_ONLY
    steps: int = 8
    scale: str = "auto"

    name: ClassVar[str] = "polar-slice"
    gradient: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("schar2023", "the polar slice kernel"),)

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.steps >= 1):
            raise MotesError(f"PolarSlice needs width > 0 and steps >= 1, not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        if d < 2:
            raise MotesError("polar slices need at least two dimensions: use a kernel like 'slice'")
        # log r of a standard Gaussian has standard deviation 1 / sqrt(2 d)
        spread = torch.full((2,), 1 / math.sqrt(2 * d), dtype=dtype)
        return {"mean": torch.zeros(2, d, dtype=dtype), "scale": torch.ones(2, d, dtype=dtype), "spread": spread}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x = state["position"]
        mean = fit_mean(x, weight, parameters["mean"])
        scale = fit_scale(x, weight, self.scale, parameters["scale"])
        radius = _radius(whiten(x - by_half(mean, len(x)), scale)).log()[:, None]
        spread = fit_scale(radius, weight, "diagonal", parameters["spread"][:, None])[:, 0]
        return {**parameters, "mean": mean, "scale": scale, "spread": spread}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        (n, d), scale = state["position"].shape, parameters["scale"]
        mean = by_half(parameters["mean"], n)
        here = state["position"] - mean
        white = whiten(here, scale)
        radius = _radius(white)
        noise = rng.at("circle").normal((n, d), dtype=white.dtype)
        across = noise - (torch.linalg.vecdot(noise, white) / radius.square())[:, None] * white
        there = scaled(across * (radius / _radius(across))[:, None], scale)

        def circle(i: Tensor, t: Tensor) -> tuple[Tensor, float]:
            return mean[i] + t.cos()[:, None] * here[i] + t.sin()[:, None] * there[i], 0.0

        # the level is relative to r^d at the old radius, which the direction does not change
        level = target.log_density(state) - rng.at("level").exponential((n,))
        high = 2 * math.pi * rng.at("angle").uniform((n,), dtype=white.dtype)
        around = rng.at("direction")
        state, angle, stayed, turning = shrink(around, target, circle, state, level, high - 2 * math.pi, high)
        ray = angle.cos()[:, None] * here + angle.sin()[:, None] * there

        def line(i: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return mean[i] + t.exp()[:, None] * ray[i], d * t.to(torch.float64)

        width = self.width * by_half(parameters["spread"], n)
        outwards = rng.at("radius")
        low, high, before = step_out(outwards, target, line, level, width, self.steps)
        state, _, still, after = shrink(outwards, target, line, state, level, low, high)
        return Sweep(state, torch.ones(n, dtype=torch.float64), (turning + before + after) / n, stayed & still)


def _radius(rows: Tensor) -> Tensor:
    """(N,) the lengths of the rows, positive."""
    return torch.linalg.vector_norm(rows, dim=1).clamp(min=torch.finfo(rows.dtype).tiny ** 0.25)
