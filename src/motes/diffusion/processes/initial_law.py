"""The law of the states at the first time of a sampler, and draws from it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process
from motes.rng import Rng


class InitialLaw(ABC):
    """A law for the states at the first time of a sampler.

    The reference of a weighted sampler is then the chain that starts there, so the weights stay exact for that chain;
    whether the chain is the model's is for the law that starts it to say.
    """

    @abstractmethod
    def __call__(self, rng: Rng, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """States of shape (n, ...), on the CPU."""


def initial_states(
    rng: Rng, process: Process, start: InitialLaw | None, shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> Tensor:
    """The states (n, ...) that a sampler begins with."""
    if start is not None:
        return start(rng.at("start"), shape, dtype).to(device)
    return rng.at("start").normal(shape, dtype=dtype).to(device) * process.start_std
