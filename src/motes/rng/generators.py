"""The counter-based generators behind one interface: an address in, 32-bit words out.

Words travel in int64 tensors, because torch has no unsigned shifts on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import blake2b

from torch import Tensor

MASK = 0xFFFFFFFF


def address_hash(*parts: str | int, size: int = 8) -> int:
    """A `size`-byte hash of the parts, each written with its length, so that no two lists of parts look alike."""
    digest = blake2b(digest_size=size, person=b"motes.rng")
    for part in parts:
        data = part.encode() if isinstance(part, str) else part.to_bytes(8, "little")
        digest.update(len(data).to_bytes(4, "little") + data)
    return int.from_bytes(digest.digest(), "little")


class Generator(ABC):
    """A pure function (key, block, particle, step, inner) -> `words` 32-bit words."""

    name: str
    words: int  # how many words one block holds: 1, 2 or 4

    @abstractmethod
    def key(self, seed: int, purpose: str, kind: str, step: int, inner: int) -> tuple[int, int]:
        """The key as two 32-bit halves (low, high)."""

    @abstractmethod
    def block(self, key: tuple[int, int], block: Tensor, particle: Tensor, step: int, inner: int) -> tuple[Tensor, ...]:
        """The words at an address; `block` and `particle` broadcast against each other."""


def halves(key: int) -> tuple[int, int]:
    """The low and the high 32 bits of a 64-bit key."""
    return key & MASK, key >> 32
