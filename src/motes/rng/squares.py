"""Squares32 and Squares64: three or four squarings of a 64-bit counter, under a key that follows a rule.

Widynski, Squares: a fast counter-based RNG (arXiv 2004.06278). The generator is only as good as its keys, so they
are made here and cannot be given: hexadecimal digits 0 (the lowest) to 7 all different and not 0, digit 0 odd, digits
8 to 15 not 0 and each different from the digit below it.
"""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from .generators import MASK, Generator, address_hash, halves


def squares_key(number: int) -> int:
    """The key for a (128-bit) number: its digits in a mixed radix choose the key's hexadecimal digits.

    All 8 P(14, 7) 14^8 = 2.04e17 keys are reached, each as often as any other up to one part in 2^70.
    """

    def choose(choices: list[int]) -> int:
        nonlocal number
        number, at = divmod(number, len(choices))
        return choices[at]

    digits = [choose([1, 3, 5, 7, 9, 11, 13, 15])]
    for _ in range(7):
        digits.append(choose([d for d in range(1, 16) if d not in digits]))
    for _ in range(8):
        digits.append(choose([d for d in range(1, 16) if d != digits[-1]]))
    return sum(digit << (4 * place) for place, digit in enumerate(digits))


def _signed(key: tuple[int, int]) -> int:
    value = key[0] | key[1] << 32
    return value - (value >> 63 << 64)


def _swap(x: Tensor) -> Tensor:
    return (x << 32) | ((x >> 32) & MASK)


def squares32(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """One 32-bit word for a 64-bit counter (int64 tensors, the arithmetic wraps)."""
    y = counter * _signed(key)
    z = y + _signed(key)
    x = _swap(y * y + y)
    x = _swap(x * x + z)
    x = _swap(x * x + y)
    return ((x * x + z) >> 32) & MASK


def squares64(counter: Tensor, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The high and the low word of the 64 bits for a 64-bit counter."""
    y = counter * _signed(key)
    z = y + _signed(key)
    x = _swap(y * y + y)
    x = _swap(x * x + z)
    x = _swap(x * x + y)
    t = x * x + z
    x = _swap(t)
    value = t ^ (((x * x + y) >> 32) & MASK)
    return (value >> 32) & MASK, value & MASK


@lru_cache(maxsize=4096)
def _key(seed: int, name: str, purpose: str, kind: str, step: int, inner: int) -> tuple[int, int]:
    return halves(squares_key(address_hash(seed, name, purpose, kind, step, inner, size=16)))


class Squares(Generator):
    """counter = particle * 2^32 + block, key = rule(hash128(seed, generator, purpose, kind of draw, step, inner))."""

    def key(self, seed: int, purpose: str, kind: str, step: int, inner: int) -> tuple[int, int]:
        return _key(seed, self.name, purpose, kind, step, inner)


class Squares32(Squares):
    """One word a block."""

    name = "squares32"
    words = 1

    def block(self, key: tuple[int, int], block: Tensor, particle: Tensor, step: int, inner: int) -> tuple[Tensor, ...]:
        return (squares32((particle << 32) | block, key),)


class Squares64(Squares):
    """Two words a block."""

    name = "squares64"
    words = 2

    def block(self, key: tuple[int, int], block: Tensor, particle: Tensor, step: int, inner: int) -> tuple[Tensor, ...]:
        return squares64((particle << 32) | block, key)
