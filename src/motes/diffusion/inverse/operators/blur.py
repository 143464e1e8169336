"""A periodic convolution: deblurring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.arguments import check_tensors
from motes.diffusion.inverse.operator import LinearOperator
from motes.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """Convolution with a kernel, periodic at the edges: deblurring.

    Args:
        kernel: (h, w), odd sizes; its centre is the pixel itself.
    """

    kernel: Tensor

    def __post_init__(self) -> None:
        check_tensors(kernel=self.kernel)
        if self.kernel.ndim != 2 or not all(n % 2 for n in self.kernel.shape):
            raise ShapeError(f"need a kernel (h, w) with odd sizes, not {tuple(self.kernel.shape)}")

    def apply(self, images: Tensor) -> Tensor:
        return self._filter(images, self._spectrum(images))

    def adjoint(self, measurements: Tensor) -> Tensor:
        return self._filter(measurements, self._spectrum(measurements).conj())

    def solve(self, residual: Tensor, noise: float, spread: float) -> Tensor:
        return self._filter(residual, 1 / (spread * self._spectrum(residual).abs() ** 2 + noise))

    def _filter(self, images: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(images) * spectrum).real

    def _spectrum(self, images: Tensor) -> Tensor:
        (h, w), size = self.kernel.shape, images.shape[-2:]
        if h > size[0] or w > size[1]:
            raise ShapeError(f"the kernel {(h, w)} is larger than the images {tuple(size)}")
        wide = images.new_zeros(size)
        wide[:h, :w] = self.kernel.to(images)
        return torch.fft.fft2(torch.roll(wide, (-(h // 2), -(w // 2)), (0, 1)))
