"""Guidance along the gradient of what a path is thought to be worth: the predicted reward, or a twist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from motes.diffusion.evaluation.context import Guidance, StepContext, guidances
from motes.errors import MotesError


@guidances.register
@dataclass(frozen=True)
class ValueGradient(Guidance):
    """A drift along the gradient of the log-value, through the denoiser.

    With the log of the expected exp(reward) given the state as value, and scale 1, it is the drift of Doob's transform:
    the weights of small steps no longer vary.

    Args:
        scale: what multiplies the gradient.

    References:
        Wu, Trippe, Naesseth, Blei & Cunningham (2023), Practical and Asymptotically Exact Conditional Sampling in
        Diffusion Models, NeurIPS, section 3.
    """

    scale: float = 1.0
    value: ClassVar[bool] = True

    def __call__(self, context: StepContext) -> Tensor:
        if context.log_value is None:
            raise MotesError("guidance by the reward needs a reward; give one, or a function (x, t) as guidance")
        what = "twist" if context.predicted is None else "reward"
        return context.shift(self.scale * context.gradient(context.log_value, what))
