"""Random numbers by address: `Rng(seed).at(purpose, step=t).normal((n, d))`."""

from .check import self_test
from .distributions import register
from .rng import Rng

__all__ = ["Rng", "register", "self_test"]
