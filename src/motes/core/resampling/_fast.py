"""The loops of `_grid.py` and `ssp.py` in numba: same integers, no temporary vectors."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

SMALL = 16_384
"""Up to this length plain tensors are as fast, and nobody waits for a compiler."""

present = find_spec("numba") is not None


def suits(x: Tensor) -> bool:
    """Whether to take the fast route."""
    return False
