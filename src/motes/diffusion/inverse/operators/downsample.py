"""Means of blocks: super-resolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.inverse.operator import LinearOperator
from motes.errors import ShapeError, check_at_least


@dataclass(frozen=True)
class Downsample(LinearOperator):
    """Means of blocks of `factor` x `factor` pixels: super-resolution.

    Args:
        factor: must divide height and width.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_at_least(1, factor=self.factor)

    def apply(self, images: Tensor) -> Tensor:
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise ShapeError(f"images {tuple(images.shape[1:])} cannot be cut into blocks of {self.factor}")
        return torch.nn.functional.avg_pool2d(images, self.factor)

    def adjoint(self, measurements: Tensor) -> Tensor:
        wide = measurements.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        return wide / self.factor**2

    def solve(self, residual: Tensor, noise: float, spread: float) -> Tensor:
        return residual / (spread / self.factor**2 + noise)
