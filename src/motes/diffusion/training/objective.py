"""What a network is trained for: a loss of each example of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

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

    def settings(self) -> dict[str, Any]:
        """What identifies the objective, as JSON; compared when training resumes."""
        chosen: dict[str, Any] = {"objective": type(self).__name__}
        for field in fields(self):  # type: ignore[arg-type]  # every objective is a dataclass
            value = getattr(self, field.name)
            known = value is None or isinstance(value, (bool, int, float, str))
            chosen[field.name] = value if known else named(value)
        return chosen


def named(value: Any) -> Any:
    """A setting that is no plain value: its own settings where it has some, else the name of its type."""
    settings = getattr(value, "settings", None)
    return settings() if callable(settings) else type(value).__name__
