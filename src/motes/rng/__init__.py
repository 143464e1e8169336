"""Random numbers by address: `Rng(seed).at(purpose, step=t).normal((n, d))`."""

from .distributions import register
from .rng import Rng

__all__ = ["Rng", "register"]
