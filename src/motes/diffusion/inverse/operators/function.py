"""A linear function of the user, and linear physics of deepinv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from torch import Tensor

from motes.diffusion.inverse.operator import LinearOperator, transpose
from motes.errors import MotesError


@dataclass(frozen=True, eq=False)
class Function(LinearOperator):
    """A linear function, and its adjoint or the shape of an image from which the adjoint is derived.

    Args:
        function: maps images (n, *shape) to measurements (n, *out), linearly.
        adjoint_function: maps back; None derives it by differentiation.
        shape: of one image, needed without `adjoint_function`.
    """

    function: Callable[[Tensor], Tensor]
    _: KW_ONLY
    adjoint_function: Callable[[Tensor], Tensor] | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.adjoint_function is None and self.shape is None:
            raise MotesError("give the adjoint, or the shape of an image so that it can be derived")

    def apply(self, images: Tensor) -> Tensor:
        return self.function(images)

    def adjoint(self, measurements: Tensor) -> Tensor:
        if self.adjoint_function is not None:
            return self.adjoint_function(measurements)
        return transpose(self.function, measurements.new_zeros(len(measurements), *(self.shape or ())), measurements)


def from_deepinv(physics: Any) -> Function:
    """A linear physics of deepinv (with `A` and `A_adjoint`) as an operator; its noise is said to `Observation`."""
    return Function(physics.A, adjoint_function=physics.A_adjoint)
