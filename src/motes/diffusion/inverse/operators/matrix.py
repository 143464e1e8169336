"""A dense matrix on flattened images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.arguments import check_tensors
from motes.diffusion.inverse.operator import LinearOperator
from motes.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Matrix(LinearOperator):
    """A dense matrix on flattened images.

    Args:
        matrix: (m, d).
        shape: of one image, d numbers.
    """

    matrix: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_tensors(matrix=self.matrix)
        d = torch.Size(self.shape).numel()
        if self.matrix.ndim != 2 or self.matrix.shape[1] != d:
            raise ShapeError(f"need a matrix (m, {d}) for images {self.shape}, not {tuple(self.matrix.shape)}")
        left, values, _ = torch.linalg.svd(self.matrix.to(torch.float64), full_matrices=False)
        object.__setattr__(self, "_left", left)
        object.__setattr__(self, "_values", values)

    def apply(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.matrix.to(images).T

    def adjoint(self, measurements: Tensor) -> Tensor:
        return (measurements @ self.matrix.to(measurements)).reshape(-1, *self.shape)

    def solve(self, residual: Tensor, noise: float, spread: float) -> Tensor:
        left: Tensor = self._left.to(residual)  # type: ignore[attr-defined]
        values: Tensor = self._values.to(residual)  # type: ignore[attr-defined]
        inside = residual @ left
        seen = (inside / (spread * values**2 + noise)) @ left.T
        if left.shape[0] == left.shape[1]:
            return seen  # what is left of the residual is rounding, which a small noise would make large
        return seen + (residual - inside @ left.T) / noise
