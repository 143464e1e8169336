"""What a network is trained for: a loss of each example of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from motes.errors import MotesError
from motes.rng import Rng


class Diverged(MotesError):
    """A loss or a gradient became NaN or infinite."""


class Objective(ABC):
    """What training lowers: the mean over examples of a loss that may draw noise of its own."""

    @abstractmethod
    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        """The losses (B,) of a batch, tensors (B, ...) that belong together row by row."""
