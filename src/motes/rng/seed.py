"""The random numbers of a seed, which is a whole number or an address."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from motes.errors import WrongType
from motes.rng.rng import Rng


def source(seed: int | Rng) -> Rng:
    """The random numbers of a seed; anything else is taken to be such a source itself."""
    if isinstance(seed, (int, Integral)) and not isinstance(seed, bool):
        return Rng(int(seed))
    if seed is None or isinstance(seed, (bool, str, float)):
        raise WrongType(f"seed must be a whole number (or an Rng), not {seed!r}")
    return seed


def seeded(seed: Any) -> Rng:
    """The random numbers of a seed; a TypeError unless it is a whole number or an address of random numbers."""
    rng = source(seed)
    if not isinstance(rng, Rng):
        raise WrongType(f"seed must be a whole number or an address such as motes.Rng(0), not {rng!r}")
    return rng
