"""Slice sampling along random lines or along the axes."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError, check_name
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.dynamics.bracket import shrink, step_out
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class Slice(Kernel):
    """Hit-and-run slice sampling: along a random line, to a place where the density is above a random level.

    The line is x + t S e, with e uniform on the unit sphere (or one of the axes) and S S^T the population's covariance,
    so that the target's standard deviation along it is about 1. The level is log p(x) + log(uniform); a bracket of
    `width`, placed at random around t = 0, is stepped out to at most `steps` widths, and shrinks towards t = 0 until a
    uniform place in it is above the level. Nothing is ever rejected and no step size is tuned. Exact for any width.

    References:
        Neal (2003), Slice sampling, Annals of Statistics 31(3), sections 4 and 5.
        Belisle, Romeijn & Smith (1993), Hit-and-run algorithms for generating multivariate distributions,
        Mathematics of Operations Research 18(2).

    Args:
        directions: "sphere" for random lines, "axes" for a random coordinate (which S then scales alone).
        width: the first bracket, in standard deviations of the population.
        steps: the most widths that the bracket is stepped out to.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`); always diagonal along axes.

    Raises:
        ValueError: another word for `directions`, or width or steps that are not positive.
    """

    directions: str = "sphere"
    _: KW_ONLY
    width: float = 2.5
    steps: int = 8
    scale: str = "auto"

    name: ClassVar[str] = "slice"
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("neal2003", "the slice kernel"),
        cited("belisle1993", "the slice kernel's random lines"),
    )

    def __post_init__(self) -> None:
        check_name("kind of directions", self.directions, ("sphere", "axes"))
        if not (self.width > 0 and self.steps >= 1):
            raise MotesError(f"Slice needs width > 0 and steps >= 1, not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"scale": torch.ones(2, d, dtype=dtype)}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        kind = self.scale if self.directions == "sphere" else "diagonal"
        return {**parameters, "scale": fit_scale(state["position"], weight, kind, parameters["scale"])}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, (n, d) = state["position"], state["position"].shape
        if self.directions == "sphere":
            e = rng.at("direction").normal((n, d), dtype=x.dtype)
            e = e / torch.linalg.vector_norm(e, dim=1, keepdim=True)
        else:
            e = torch.zeros_like(x).scatter_(1, rng.at("direction").integers((n, 1), d), 1.0)
        direction = scaled(e, parameters["scale"])

        def line(i: Tensor, t: Tensor) -> tuple[Tensor, float]:
            return torch.addcmul(x[i], t[:, None], direction[i]), 0.0

        level = target.log_density(state) - rng.at("level").exponential((n,))
        width = torch.full((n,), self.width, dtype=x.dtype)
        low, high, before = step_out(rng, target, line, level, width, self.steps)
        state, _, stayed, after = shrink(rng, target, line, state, level, low, high)
        return Sweep(state, torch.ones(n, dtype=torch.float64), (before + after) / n, stayed)
