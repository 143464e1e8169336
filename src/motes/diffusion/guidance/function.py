"""Guidance by a user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from motes.diffusion.evaluation.context import Guidance, StepContext, guidances
from motes.errors import ShapeError


@guidances.register
@dataclass(frozen=True)
class FunctionGuidance(Guidance):
    """A drift along what a function of the state and the time returns.

    Args:
        function: maps x (n, *shape) and the time to a push like x: the gradient of a log-value.
    """

    function: Callable[[Tensor, float], Tensor]

    @property
    def graph(self) -> bool:
        return False

    def probe(self, images: Tensor, t: float) -> Tensor:
        return self.function(images, t)

    def __call__(self, context: StepContext) -> Tensor:
        push = self.function(context.x, context.t)
        if push.shape != context.x.shape:
            raise ShapeError(
                f"guidance returned shape {tuple(push.shape)} for states of shape {tuple(context.x.shape)}: it must be "
                "like them"
            )
        return context.shift(push.to(context.x))
