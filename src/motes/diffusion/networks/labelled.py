"""A network of all classes, as the network of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Labelled:
    """A network that takes labels, asked about one label."""

    network: Callable[..., Tensor]
    label: int

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network(x, t, label=torch.full((len(x),), self.label, device=x.device))
