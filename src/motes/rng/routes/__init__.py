"""Ways to compute the same numbers: plain torch (normative), numba on the CPU, Triton on CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng.generators import Generator

from . import reference


def draw(
    route: str,
    generator: Generator,
    what: str,
    key: tuple[int, int],
    particle: Tensor,
    count: int,
    step: int,
    inner: int,
    dtype: torch.dtype,
) -> Tensor:
    """Draws 0..count-1 of each particle (n, count) by the named route."""
    return reference.draw(generator, what, key, particle, count, step, inner, dtype)


def words(
    route: str,
    generator: Generator,
    key: tuple[int, int],
    particle: Tensor,
    first: Tensor,
    count: int,
    step: int,
    inner: int,
) -> Tensor:
    """Words `first`..`first + count - 1` of each particle (m, count)."""
    return reference.words(generator, key, particle, first, count, step, inner)
