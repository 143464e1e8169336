"""Sums along rays: computed tomography."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.inverse.operator import LinearOperator, transpose
from motes.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Radon(LinearOperator):
    """Sums along parallel rays at some angles, by bilinear interpolation: computed tomography.

    Args:
        angles: (a,) radians.
    """

    angles: Tensor

    def apply(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
            raise ShapeError(f"need square images (n, channels, s, s), not {tuple(images.shape)}")
        rows = []
        for angle in self.angles.to(images):
            c, s = torch.cos(angle), torch.sin(angle)
            turn = torch.stack([torch.stack([c, -s, c * 0]), torch.stack([s, c, c * 0])])[None]
            grid = torch.nn.functional.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), False)
            rows.append(torch.nn.functional.grid_sample(images, grid, align_corners=False).sum(-2))
        return torch.stack(rows, dim=2)  # (n, channels, angles, s)

    def adjoint(self, measurements: Tensor) -> Tensor:
        n, channels, _, size = measurements.shape
        zero = measurements.new_zeros(n, channels, size, size)
        return transpose(self.apply, zero, measurements)
