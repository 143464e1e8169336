"""Which characters a part of one can become, within a JSON string: bytes of UTF-8, escapes and their digits."""

from __future__ import annotations

from functools import lru_cache

from motes.language.constraints.schema.ranges import LAST, Ranges, joined
from motes.language.constraints.schema.strings import ESCAPE, PAIR, SECOND, TAIL, Within

HIGH, LOW, ASTRAL = (0xD800, 0xDBFF), (0xDC00, 0xDFFF), 0x10000
"""The first and the second halves of surrogate pairs, and the first character that needs one."""


@lru_cache(1 << 12)
def characters(within: Within) -> Ranges:
    """The characters that a part of one can end as, in ascending order; the empty part can end as any."""
    if not within or within[0] == ESCAPE:
        return _whole(0, LAST)
    if within[0] == TAIL:
        _, left, code, least = within
        return _whole(max(code << 6 * left, least), min((code + 1 << 6 * left) - 1, LAST))
    if within[0] in (PAIR, SECOND):
        return _pairs(within[1], within[1])
    _, left, code, high = within
    first, last = code << 4 * left, (code + 1 << 4 * left) - 1
    if high:
        base = ASTRAL + ((high - HIGH[0]) << 10)
        first, last = max(first, LOW[0]) - LOW[0], min(last, LOW[1]) - LOW[0]
        return ((base + first, base + last),) if first <= last else ()
    return joined([*_whole(first, last), *_pairs(max(first, HIGH[0]), min(last, HIGH[1]))])


def _whole(first: int, last: int) -> Ranges:
    """The characters of a range of code points, without the halves of surrogate pairs."""
    parts = (first, min(last, HIGH[0] - 1)), (max(first, LOW[1] + 1), last)
    return tuple((a, b) for a, b in parts if a <= b)


def _pairs(first: int, last: int) -> Ranges:
    """The characters whose pairs begin with one of these halves."""
    if first > last:
        return ()
    return ((ASTRAL + ((first - HIGH[0]) << 10), ASTRAL + ((last - HIGH[0]) << 10) + 0x3FF),)
