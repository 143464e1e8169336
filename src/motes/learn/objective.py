"""What a network is trained for: a loss of each example of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from motes.errors import MotesError
from motes.rng import Rng


class Diverged(MotesError):
    """A loss or a gradient became NaN or infinite."""


class Objective(ABC):
    """What training lowers: the mean over examples of a loss that may draw noise of its own.

    A subclass has one method, `__call__(network, rng, batch)`, which returns the losses (B,) of the batch; a function
    of these three does as well. Random numbers come from `rng`, by name: `rng.at("noise").normal(shape)`.

    The losses depend on the three alone. What an objective changes in itself at a call (a count for a log) may not
    change them: it is called for held-out examples and for checkpoints too, and a checkpoint holds nothing of it. These
    calls are made with gradients off; a loss that holds a gradient turns them on (`torch.enable_grad`). A checkpoint
    tells an objective from another by its losses of the first examples.
    """

    @abstractmethod
    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        """The losses (B,) of a batch, tensors (B, ...) that belong together row by row."""
