"""The random numbers of a seed, which is a whole number or an address."""

from __future__ import annotations

from numbers import Integral

from motes.errors import WrongType
from motes.rng.rng import Rng


def seeded(seed: int | Rng) -> Rng:
    """The random numbers of a whole number; an address of random numbers, or what stands in for one, is its own.

    Raises:
        WrongType: it is neither.
    """
    if isinstance(seed, (int, Integral)) and not isinstance(seed, bool):
        return Rng(int(seed))
    if isinstance(seed, bool) or not callable(getattr(seed, "at", None)):
        raise WrongType(f"seed must be a whole number or an address such as motes.Rng(0), not {seed!r}")
    return seed
