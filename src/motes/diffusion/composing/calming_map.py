"""A map of the states after each step that calms the weights of a power of models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.composing.crosswise import by_half, other_half, rows
from motes.diffusion.composing.step_weights import Grid, dot


@dataclass(frozen=True)
class CalmingMap:
    """A map of states away from (or towards) a point that follows a step, y -> centre + factor (y - centre).

    A drift u (x - m) adds u (d + (x - m) . score) to the rate of the weights; u is the least squares solution that
    calms them most (the simplest of the drifts of `DriftLite`), and the map is that drift's flow. Each half of the
    particles is mapped as the other half asks for.

    Attributes:
        centre: (N, ...), like the states.
        factor: (N,) of every distance from the centre.
    """

    centre: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, grid: Grid, k: int, x: Tensor, score: Tensor, rate: Tensor, weight: Tensor) -> CalmingMap:
        """The map for particles x (N, ...) with weights (N,), and the rate (N,) of their log-weights."""
        dt = float(grid.times[k] - grid.times[k + 1])
        centres, speeds = [], []
        for w in other_half(weight):
            centre = torch.einsum("n,n...->...", w.to(x), x)
            change = dot(x - centre, score)  # but for a constant
            change = change - w @ change
            speeds.append(-((w * change) @ rate) / (w @ change.square()).clamp(min=1e-300))
            centres.append(centre)
        factor = torch.exp((torch.stack(speeds) * dt).clamp(-0.5, 0.5))
        return cls(by_half(torch.stack(centres), len(x)), by_half(factor, len(x)))

    def __call__(self, x: Tensor) -> Tensor:
        return self.centre + rows(self.factor, x) * (x - self.centre)
