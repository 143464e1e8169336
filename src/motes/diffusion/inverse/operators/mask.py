"""Some pixels of an image: inpainting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.arguments import check_tensors
from motes.diffusion.inverse.operator import LinearOperator
from motes.errors import MotesError, ShapeError


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """Some pixels of an image, in a row: inpainting.

    Args:
        keep: (*shape) bool, what is seen.
    """

    keep: Tensor

    def __post_init__(self) -> None:
        check_tensors(keep=self.keep)
        if self.keep.dtype != torch.bool or not bool(self.keep.any()):
            raise MotesError("a mask is a bool tensor of the shape of one image with at least one True")

    def apply(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.keep.shape:
            raise ShapeError(f"the mask is {tuple(self.keep.shape)}, the images are {tuple(images.shape[1:])}")
        return images[:, self.keep.to(images.device)]

    def adjoint(self, measurements: Tensor) -> Tensor:
        images = measurements.new_zeros(len(measurements), *self.keep.shape)
        images[:, self.keep.to(images.device)] = measurements
        return images

    def solve(self, residual: Tensor, noise: float, spread: float) -> Tensor:
        return residual / (spread + noise)
