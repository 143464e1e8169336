"""Threefry2x32-20: additions, rotations and exclusive ors only; a 64-bit counter, so step and inner go to the key.

Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section 4.2.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .generators import MASK, Generator, address_hash, halves

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA


def threefry2x32(counter: tuple[Tensor, Tensor], key: tuple[int, int], rounds: int = 20) -> tuple[Tensor, Tensor]:
    """Two 32-bit words (int64 tensors) for two counter words and two key words."""
    keys = (*key, key[0] ^ key[1] ^ PARITY)
    x0, x1 = (counter[0] + keys[0]) & MASK, (counter[1] + keys[1]) & MASK
    for i in range(rounds):
        rotation = ROTATIONS[i % 8]
        x0 = (x0 + x1) & MASK
        x1 = (((x1 << rotation) | (x1 >> (32 - rotation))) & MASK) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0, x1 = (x0 + keys[j % 3]) & MASK, (x1 + keys[(j + 1) % 3] + j) & MASK
    return x0, x1


@lru_cache(maxsize=4096)
def _key(seed: int, name: str, purpose: str, kind: str, step: int, inner: int) -> tuple[int, int]:
    return halves(address_hash(seed, name, purpose, kind, step, inner))


class Threefry2x32(Generator):
    """counter = (block, particle), key = hash64(seed, generator, purpose, kind of draw, step, inner)."""

    name = "threefry2x32-20"
    words = 2

    def key(self, seed: int, purpose: str, kind: str, step: int, inner: int) -> tuple[int, int]:
        return _key(seed, self.name, purpose, kind, step, inner)

    def block(self, key: tuple[int, int], block: Tensor, particle: Tensor, step: int, inner: int) -> tuple[Tensor, ...]:
        block, particle = torch.broadcast_tensors(block, particle)
        return threefry2x32((block, particle), key)
