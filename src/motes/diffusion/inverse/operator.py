"""Linear measurements of images: what is needed of one to sample the images behind its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.errors import MotesError, ShapeError
from motes.diffusion.arguments import check_tensors
from motes.diffusion.look import digest

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
LIMIT = 1000


class LinearOperator(ABC):
    """A linear map A from images (n, *shape) to measurements (n, *out).

    A subclass says `apply`, `adjoint` and, where it knows a shortcut, `solve`.
    """

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """A x for each image."""

    @abstractmethod
    def adjoint(self, measurements: Tensor) -> Tensor:
        """A' y for each measurement, images."""

    def solve(self, residual: Tensor, noise: float, spread: float) -> Tensor:
        """(spread A A' + noise I)^-1 r for residuals (n, *out); `noise` and `spread` are variances.

        By conjugate gradients on A A' + (noise / spread) I, each row by itself, until the residual has fallen to 1e-5
        (float32) or 1e-10 (float64) of its size.

        Raises:
            MotesError: they did not converge: the noise is too small for the operator, or `adjoint` is not its adjoint.
        """
        if spread == 0:
            return residual / noise
        ridge = noise / spread
        x = torch.zeros_like(residual)
        r = p = residual / spread
        size = _dot(r, r)
        end = TOLERANCE[residual.dtype] ** 2 * size
        for _ in range(LIMIT):
            if bool((size <= end).all()):
                return x
            q = self.apply(self.adjoint(p)) + ridge * p
            curve = _dot(p, q)
            step = torch.where(size > end, size / curve.where(curve != 0, torch.ones_like(curve)), 0.0)
            x, r = x + step * p, r - step * q
            new = _dot(r, r)
            p = r + torch.where(size > end, new / size.clamp(min=torch.finfo(size.dtype).tiny), 0.0) * p
            size = new
        raise MotesError(
            f"conjugate gradients did not converge for {type(self).__name__} at noise variance {noise:.2g} beside a "
            f"spread of {spread:.2g}: give more noise, or check that `adjoint` is the adjoint of `apply`"
        )

    def settings(self) -> dict[str, Any]:
        """What identifies it, as JSON."""
        given = {k: v for k, v in vars(self).items() if isinstance(v, Tensor) and not k.startswith("_")}
        return {"name": type(self).__name__, **{k: digest(v) for k, v in given.items()}}


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row, shaped to multiply rows."""
    return (a * b).reshape(len(a), -1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


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
            raise ValueError("a mask is a bool tensor of the shape of one image with at least one True")

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


@dataclass(frozen=True)
class Downsample(LinearOperator):
    """Means of blocks of `factor` x `factor` pixels: super-resolution.

    Args:
        factor: must divide height and width.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor}")

    def apply(self, images: Tensor) -> Tensor:
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise ShapeError(f"images {tuple(images.shape[1:])} cannot be cut into blocks of {self.factor}")
        return torch.nn.functional.avg_pool2d(images, self.factor)

    def adjoint(self, measurements: Tensor) -> Tensor:
        wide = measurements.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        return wide / self.factor**2

    def solve(self, residual: Tensor, noise: float, spread: float) -> Tensor:
        return residual / (spread / self.factor**2 + noise)

    def settings(self) -> dict[str, Any]:
        return {"name": "Downsample", "factor": self.factor}


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
            raise ValueError("need a bool tensor (height, width) with at least one True")

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
        return _transpose(self.apply, zero, measurements)


@dataclass(frozen=True, eq=False)
class Function(LinearOperator):
    """A linear function, and its adjoint or the shape of an image from which the adjoint is derived.

    Args:
        function: maps images (n, *shape) to measurements (n, *out), linearly.
        adjoint_function: maps back; None derives it by differentiation.
        shape: of one image, needed without `adjoint_function`.
    """

    function: Callable[[Tensor], Tensor]
    adjoint_function: Callable[[Tensor], Tensor] | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.adjoint_function is None and self.shape is None:
            raise ValueError("give the adjoint, or the shape of an image so that it can be derived")

    def apply(self, images: Tensor) -> Tensor:
        return self.function(images)

    def adjoint(self, measurements: Tensor) -> Tensor:
        if self.adjoint_function is not None:
            return self.adjoint_function(measurements)
        return _transpose(self.function, measurements.new_zeros(len(measurements), *(self.shape or ())), measurements)


def from_deepinv(physics: Any) -> Function:
    """A linear physics of deepinv (with `A` and `A_adjoint`) as an operator; its noise is said to `Observation`."""
    return Function(physics.A, physics.A_adjoint)


def _transpose(function: Callable[[Tensor], Tensor], zero: Tensor, measurements: Tensor) -> Tensor:
    with torch.enable_grad():
        at = zero.detach().requires_grad_()
        return torch.autograd.grad(function(at), at, measurements)[0]
