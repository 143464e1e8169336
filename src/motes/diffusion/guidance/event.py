"""Conditioning on an event that the user states, and its probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.diffusion.evaluation.context import StepContext, Twist, guidances, slope_of
from motes.errors import ShapeError, check_positive


@guidances.register
@dataclass(frozen=True, eq=False)
class Event(Twist):
    """The event that statistic(x_0) > 0: its log-probability given a state, by the state's own posterior moments.

    With D the denoised prediction, S = (sigma^2 / alpha) dD/dx the posterior covariance (exact for the true denoiser)
    and g the statistic's gradient at D, log P(event | x_t) is taken as log Phi(statistic(D) / sqrt(g' S g)): exact for
    normal data and a linear statistic. Give it as `twist`, its `reward` as the reward and guidance="reward": the log
    normaliser of the run is the log-probability of the event under the model, whatever the quality of the guess; what
    finite steps do to it is in the error bar of the run.

    Args:
        statistic: maps images (n, *shape) to (n,), differentiably.
        floor: the least standard deviation of the statistic that is believed, as a share of that of normal data of unit
            variance; networks have covariances that are not positive.

    References:
        Finzi, Boral, Wilson, Sha & Zepeda-Núñez (2023), User-defined Event Sampling and Uncertainty Quantification in
        Diffusion Models for Physical Dynamical Systems, ICML, section 4 (there the covariance; the probability is the
        normal one).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> process = VariancePreserving()
        >>> denoiser = gaussian(process, torch.zeros(1), torch.eye(1))
        >>> event = Event(lambda x: x[:, 0] - 1.5)
        >>> how = {"reward": event.reward, "guidance": "reward", "twist": event}
        >>> model = motes.ReverseDiffusion(denoiser, 50, shape=(1,), **how)
        >>> run = motes.sample(model, 500, seed=1, progress=False)
        >>> abs(run.log_evidence - (-2.706)) < 0.3  # log P(N(0, 1) > 1.5)
        True
    """

    statistic: Callable[[Tensor], Tensor]
    _: KW_ONLY
    floor: float = 0.05

    def __post_init__(self) -> None:
        check_positive(floor=self.floor)

    @property
    def graph(self) -> bool:
        return True

    def reward(self, images: Tensor) -> Tensor:
        """0 for images (n, *shape) in the event and -inf for others, (n,); NaN where the statistic is."""
        value = self._value(images).to(torch.float64)
        return torch.where(value > 0, 0.0, torch.where(value.isnan(), value, -torch.inf))

    def __call__(self, context: StepContext) -> Tensor:
        value = self._value(context.denoised)
        slope = slope_of(value, context.denoised, "statistic")
        (carried,) = torch.autograd.grad(context.denoised, context.x, slope, retain_graph=True)  # (dD/dx)' g
        variance = context.sigma**2 / context.alpha * (carried * slope).to(torch.float64).flatten(1).sum(1)
        normal = (
            context.sigma**2
            / (context.alpha**2 + context.sigma**2)
            * slope.to(torch.float64).square().flatten(1).sum(1)
        )
        std = torch.maximum(variance, self.floor**2 * normal).clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        return torch.special.log_ndtr(value.to(torch.float64) / std)

    def probe(self, images: Tensor, t: float) -> Tensor:
        return self._value(images)

    def _value(self, images: Tensor) -> Tensor:
        value = self.statistic(images)
        if value.shape != (len(images),):
            raise ShapeError(
                f"the statistic must return one number an image, ({len(images)},), not {tuple(value.shape)}"
            )
        return value
