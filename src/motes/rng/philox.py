"""Philox4x32-10, the normative generator: 128 bits of counter hold a whole address, and any key is good.

Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section 4.3.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .generators import MASK, Generator, address_hash, halves

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85


def philox4x32(counter: tuple[Tensor, ...], key: tuple[int, int], rounds: int = 10) -> tuple[Tensor, ...]:
    """Four 32-bit words (int64 tensors) for four counter words and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # the product of two 32-bit words wraps in int64, but its bits are right: shift, then mask the sign away
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK, ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@lru_cache(maxsize=4096)
def _key(seed: int, name: str, purpose: str, kind: str) -> tuple[int, int]:
    return halves(address_hash(seed, name, purpose, kind))


class Philox4x32(Generator):
    """counter = (block, particle, step, inner), key = hash64(seed, generator, purpose, kind of draw)."""

    name = "philox4x32-10"
    words = 4

    def key(self, seed: int, purpose: str, kind: str, step: int, inner: int) -> tuple[int, int]:
        return _key(seed, self.name, purpose, kind)

    def block(self, key: tuple[int, int], block: Tensor, particle: Tensor, step: int, inner: int) -> tuple[Tensor, ...]:
        block, particle = torch.broadcast_tensors(block, particle)
        c2, c3 = torch.full_like(block, step), torch.full_like(block, inner)
        return philox4x32((block, particle, c2, c3), key)
