"""Linear measurements of images: what is needed of one to sample the images behind its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.core.files.settings import digest
from motes.errors import MotesError

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


def transpose(function: Callable[[Tensor], Tensor], zero: Tensor, measurements: Tensor) -> Tensor:
    """The transpose of a linear function, by differentiating it at an image of zeros."""
    with torch.enable_grad():
        at = zero.detach().requires_grad_()
        return torch.autograd.grad(function(at), at, measurements)[0]
