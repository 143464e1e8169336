"""Some frequencies of an image: lines of k-space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.arguments import check_tensors
from motes.diffusion.inverse.operator import LinearOperator
from motes.errors import MotesError, ShapeError


@dataclass(frozen=True, eq=False)
class Fourier(LinearOperator):
    """Some frequencies of the orthonormal Fourier transform, real and imaginary parts side by side: k-space lines.

    Args:
        keep: (height, width) bool, what is seen of the transform, zero frequency at [0, 0].
    """

    keep: Tensor

    def __post_init__(self) -> None:
        check_tensors(keep=self.keep)
        if self.keep.dtype != torch.bool or self.keep.ndim != 2 or not bool(self.keep.any()):
            raise MotesError("need a bool tensor (height, width) with at least one True")

    def apply(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != self.keep.shape:
            raise ShapeError(f"the mask is {tuple(self.keep.shape)}, the images are {tuple(images.shape[1:])}")
        seen = torch.fft.fft2(images, norm="ortho")[..., self.keep.to(images.device)]
        return torch.cat([seen.real, seen.imag], dim=-1)

    def adjoint(self, measurements: Tensor) -> Tensor:
        real, imaginary = measurements.chunk(2, dim=-1)
        full = torch.zeros(*measurements.shape[:-1], *self.keep.shape, dtype=torch.complex(real, imaginary).dtype)
        full = full.to(measurements.device)
        full[..., self.keep.to(measurements.device)] = torch.complex(real, imaginary)
        return torch.fft.ifft2(full, norm="ortho").real
