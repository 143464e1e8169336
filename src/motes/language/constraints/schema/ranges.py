"""Sets of characters as ranges of code points."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]
"""Characters as sorted, disjoint ranges (first, last) of code points."""

DIGIT: Ranges = ((48, 57),)
WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACE: Ranges = tuple(
    (a, b)
    for a, b in (
        (9, 13),
        (32, 32),
        (0xA0, 0xA0),
        (0x1680, 0x1680),
        (0x2000, 0x200A),
        (0x2028, 0x2029),
        (0x202F, 0x202F),
        (0x205F, 0x205F),
        (0x3000, 0x3000),
        (0xFEFF, 0xFEFF),
    )
)
LINES: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))
ANY: Ranges = ((0, LAST),)
CONTROL = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}


def joined(ranges: list[tuple[int, int]]) -> Ranges:
    """The union of some ranges."""
    out: list[tuple[int, int]] = []
    for a, b in sorted(ranges):
        if out and a <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return tuple(out)


def negated(ranges: Ranges) -> Ranges:
    """All other characters."""
    out, at = [], 0
    for a, b in ranges:
        if a > at:
            out.append((at, a - 1))
        at = b + 1
    return tuple([*out, (at, LAST)] if at <= LAST else out)


def inside(ranges: Ranges, char: int) -> bool:
    """Whether a code point lies in one of the ranges."""
    at = bisect_right(ranges, (char, LAST + 1)) - 1
    return at >= 0 and ranges[at][0] <= char <= ranges[at][1]


def between(cuts: Sequence[int], first: int, last: int) -> Sequence[int]:
    """One character out of each part of a range, which sorted `cuts` divide: a part begins at each of them."""
    return [first, *cuts[bisect_right(cuts, first) : bisect_left(cuts, last + 1)]]
