"""What samplers have in common that walk a fixed number of steps."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.views.images import shown


class StepSampler(FeynmanKac):
    """A sampler that ends after a fixed number of steps."""

    @property
    @abstractmethod
    def last(self) -> int:
        """The number of steps."""

    def done(self, particles: Particles) -> bool:
        return particles.t >= self.last

    def progress(self, particles: Particles) -> float:
        return particles.t / self.last


class ImageSampler(StepSampler):
    """A sampler of images (*shape), whose particles hold the "denoised" predictions of them."""

    shape: tuple[int, ...]

    def shows(self) -> str:
        return shown(self.shape)

    def view(self, particles: Particles) -> Tensor:
        """The images (N, *shape): the latest denoised predictions on the way, x_0 at the end."""
        return particles.x["denoised"]
