"""The context of one step: what a sampler knows of its particles at a time, by which twists and guidance decide.

A sampler asks the denoiser once at each state; everything else that wants the prediction (the reward, a twist, guidance
and their gradients) is handed the same context.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.modules import gradient
from motes.core.registry import Registry
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.rng import Rng


@dataclass(frozen=True)
class StepContext:
    """Some of the particles at time t, on their way to time s.

    Attributes:
        x: (n, *shape) the states; they carry a gradient where the twist or the guidance says that it needs one.
        t, s: the time, and the time of the next step.
        step: the number of steps done so far.
        times: (K + 1,) all times of the sampler, falling.
        denoised: (n, *shape) the denoiser's prediction of the data at x.
        denoiser: the model, for guidance that asks elsewhere (at other points only: here it has been asked).
        gain: what multiplies the gradient of a log-value to give a shift of the next step's mean.
        pull: what multiplies the prediction in the mean of the next step.
        std: the standard deviation of the next step.
        weighed: whether the sampler compares guided steps with its own: then a shift should shrink with the step.
        reward: the reward's function of images, None without one.
        predicted: (n,) the reward of the prediction, nats; None where it was not asked.
        log_value: (n,) what the path is thought to be worth if it goes on from here, nats: the twist, or the predicted
            reward by its strength at s; None where nothing is known.
        address, row: the address of the step's random numbers and which of the sampler's particles these are; `rng`
            joins them.
    """

    x: Tensor
    t: float
    s: float
    step: int
    times: Tensor
    denoised: Tensor
    denoiser: Denoiser
    gain: float
    pull: float
    std: float
    weighed: bool
    reward: Callable[[Tensor], Tensor] | None = None
    predicted: Tensor | None = None
    log_value: Tensor | None = None
    address: Rng | None = None
    row: Tensor | None = None

    @property
    def rng(self) -> Rng:
        """The random numbers of guidance at this step, for these n particles."""
        row = torch.arange(len(self.x)) if self.row is None else self.row
        return of_rows((self.address or Rng(0)).at("guidance"), row)

    @property
    def alpha(self) -> float:
        """What is left of the data in x."""
        return float(self.denoiser.process.alpha(self.t))

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise in x."""
        return float(self.denoiser.process.sigma(self.t))

    def gradient(self, log_value: Tensor, what: str = "reward") -> Tensor:
        """The gradient of (n,) values with respect to x, each by its own particle.

        Raises:
            MotesError: the values do not depend on x by operations that keep gradients.
        """
        return slope_of(log_value, self.x, what)

    def shift(self, push: Tensor) -> Tensor:
        """How far a drift along `push`, the gradient of a log-value like x, moves the mean of the next step."""
        return self.gain * push


class Twist(ABC):
    """A guess of the log of the expected exp(reward) given a state: what a path is worth before its end.

    Any finite guess leaves the target as it is, since what was provisional cancels at the end; a good one keeps the
    weights even on the way, and its gradient guides.
    """

    @property
    def graph(self) -> bool:
        """Whether the value needs gradients of the denoiser with respect to x."""
        return False

    @property
    def data_scale(self) -> float | None:
        """The standard deviation of the data about its mean that the guess takes for granted; None if it takes none."""
        return None

    @abstractmethod
    def __call__(self, context: StepContext) -> Tensor:
        """(n,) nats."""

    def probe(self, images: Tensor, t: float) -> Tensor | None:
        """What the functions it was given say of images, by which a resumed run can tell them from others."""
        return None

    def remarks(self, reward: Tensor, log_weight: Tensor) -> list[str]:
        """What the user should be told of final images with these rewards and log-weights (N,); nothing if well."""
        return []


class Guidance(ABC):
    """A rule for how far the mean of a step is moved.

    Under `ReverseDiffusion` the weights make up for whatever it does; under `Guided` nothing does.
    """

    value: ClassVar[bool] = False
    """Whether it needs the context's `log_value`."""

    @property
    def graph(self) -> bool:
        """Whether the shift needs gradients of the denoiser with respect to x."""
        return True

    @abstractmethod
    def __call__(self, context: StepContext) -> Tensor:
        """The shift of the mean of the next step, (n, *shape), in units of x."""

    def probe(self, images: Tensor, t: float) -> Tensor | None:
        """What the functions it was given say of images, by which a resumed run can tell them from others."""
        return None


guidances: Registry[Callable[..., Guidance | Twist]] = Registry("guidance", "motes.diffusion.guidance")
"""What makes guidance or a twist, by name."""


def of_rows(rng: Rng, row: Tensor) -> Rng:
    """The random numbers of the particles in the rows (n,) int64 of those that the address stands for."""
    return rng.shard(row if rng.ids is None else rng.ids[row])


def slope_of(value: Tensor, x: Tensor, what: str = "reward") -> Tensor:
    """The gradient of (n,) values with respect to images or states x (n, ...), for guidance.

    Raises:
        MotesError: they do not depend on x by operations that keep gradients.
    """
    instead = "use guidance=None or a function (x, t)"
    return gradient(value, x, f"the {what}", instead=instead, of="the image", retain_graph=True)
