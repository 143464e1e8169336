"""JSON strings, byte by byte: their characters with all escapes, and which of them a schema lets pass."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

from motes.language.constraints.schema.pattern import Pattern
from motes.language.constraints.schema.ranges import Ranges, between, inside

ESCAPES = {34: 34, 92: 92, 47: 47, 98: 8, 102: 12, 110: 10, 114: 13, 116: 9}
HEX = {c: int(chr(c), 16) for c in b"0123456789abcdefABCDEF"}
Within = tuple[int, ...]
"""Where the bytes stand between two characters: () is at a character's beginning, else what waits of one, by kind."""
OUTSIDE: Within = ()
TAIL, ESCAPE, UNICODE, PAIR, SECOND = range(5)
"""Within UTF-8; after a backslash; within its four digits; before and within the second half of a surrogate pair."""
CLOSED = -1
Read = tuple[Within, int | None]
"""What a byte does: where the bytes stand now, and the character that it ended: a code point, or `CLOSED`."""


@lru_cache(1 << 16)
def read(within: Within, byte: int) -> Read | None:
    """One byte within a string; None where it cannot come. A surrogate needs its pair: alone it is no character."""
    if not within:
        if byte == 34:
            return OUTSIDE, CLOSED
        if byte == 92:
            return (ESCAPE,), None
        if byte < 32:
            return None
        if byte < 128:
            return OUTSIDE, byte
        for first, last, bits, least in ((0xC2, 0xDF, 1, 0x80), (0xE0, 0xEF, 2, 0x800), (0xF0, 0xF4, 3, 0x10000)):
            if first <= byte <= last:
                return (TAIL, bits, byte & (0x3F >> bits), least), None
        return None
    kind = within[0]
    if kind == TAIL:
        return _tail(within, byte)
    if kind == ESCAPE:
        if byte == 117:
            return (UNICODE, 4, 0, 0), None
        return (OUTSIDE, ESCAPES[byte]) if byte in ESCAPES else None
    if kind == UNICODE:
        return _digit(within, byte)
    if kind == PAIR:
        return ((SECOND, within[1]), None) if byte == 92 else None
    return ((UNICODE, 4, 0, within[1]), None) if byte == 117 else None


def _tail(within: Within, byte: int) -> Read | None:
    _, left, code, least = within
    if byte & 0xC0 != 0x80:
        return None
    code = code << 6 | byte & 0x3F
    low, high = code << 6 * (left - 1), (code + 1 << 6 * (left - 1)) - 1
    if high < least or low > 0x10FFFF or (low >= 0xD800 and high <= 0xDFFF):
        return None
    return (OUTSIDE, code) if left == 1 else ((TAIL, left - 1, code, least), None)


def _digit(within: Within, byte: int) -> Read | None:
    _, left, code, high = within
    if byte not in HEX:
        return None
    code = code << 4 | HEX[byte]
    if high:  # the second half of a pair: D and one of C to F come first
        if (left == 4 and code != 0xD) or (left == 3 and code & 0xC != 0xC):
            return None
        whole = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)
        return (OUTSIDE, whole) if left == 1 else ((UNICODE, left - 1, code, high), None)
    if left == 3 and 0xDC <= code <= 0xDF:
        return None
    if left > 1:
        return (UNICODE, left - 1, code, 0), None
    return ((PAIR, code), None) if 0xD800 <= code <= 0xDBFF else (OUTSIDE, code)


@dataclass(frozen=True)
class Texts:
    """The strings that pass: of some length, with some patterns, or out of a list.

    Attributes:
        low, high: the fewest and the most characters; None: no bound.
        patterns: all of them have to be found.
        names: the only strings, sorted, without lone surrogates; None: any.
    """

    low: int = 0
    high: int | None = None
    patterns: tuple[Pattern, ...] = ()
    names: tuple[str, ...] | None = None

    def both(self, other: Texts) -> Texts | None:
        """The strings that pass both; None: none do, as far as that is seen."""
        high = min((h for h in (self.high, other.high) if h is not None), default=None)
        names = self.names if other.names is None else other.names
        if self.names is not None and other.names is not None:
            names = tuple(sorted({*self.names} & {*other.names}))
        out = Texts(max(self.low, other.low), high, tuple({*self.patterns, *other.patterns}), names)
        return out.thinned()

    def thinned(self) -> Texts | None:
        """The same with what a list leaves; None if nothing is left."""
        if self.high is not None and self.high < self.low:
            return None
        if self.names is None:
            return self if all(p.left(p.initial) < math.inf for p in self.patterns) else None
        fits = [name for name in self.names if self.fits(name)]
        return Texts(names=tuple(fits)) if fits else None

    def fits(self, name: str) -> bool:
        """Whether a string passes length and patterns."""
        long = self.high is not None and len(name) > self.high
        return len(name) >= self.low and not long and all(p.matches(name) for p in self.patterns)

    def start(self) -> tuple:
        """Where a string stands at its beginning."""
        if self.names is not None:
            return 0, 0, len(self.names)
        return (0, *(p.initial for p in self.patterns))

    def step(self, state: tuple, char: int) -> tuple | None:
        """Where it stands with one more character; None where nothing can come of it."""
        if self.names is not None:
            return self._listed(state, char)
        count = state[0] + 1
        if self.high is None:
            count = min(count, max(self.low, 1))
        elif count > self.high:
            return None
        after = tuple(p.step(s, char) for p, s in zip(self.patterns, state[1:], strict=True))
        far = max((p.left(s) for p, s in zip(self.patterns, after, strict=True)), default=0.0)
        return None if far == math.inf or (self.high is not None and count + far > self.high) else (count, *after)

    def begun(self, text: str) -> bool:
        """Whether a string may begin so."""
        state: tuple | None = self.start()
        for char in text:
            state = None if state is None else self.step(state, ord(char))
        return state is not None

    def goes_on(self, state: tuple, ranges: Ranges) -> bool:
        """Whether one of these characters may come next."""
        if self.names is not None:
            depth, low, high = state
            names = self.names[low:high]
            return any(len(name) > depth and inside(ranges, ord(name[depth])) for name in names)
        cuts = sorted({cut for pattern in self.patterns for cut in pattern.cuts})
        return any(self.step(state, char) is not None for a, b in ranges for char in between(cuts, a, b))

    def _listed(self, state: tuple, char: int) -> tuple | None:
        assert self.names is not None
        depth, low, high = state
        letter = chr(char)

        def key(name: str) -> str:
            return name[depth : depth + 1]

        low = bisect_left(self.names, letter, low, high, key=key)
        high = bisect_left(self.names, letter + "\0", low, high, key=key)
        return (depth + 1, low, high) if low < high else None

    def accepts(self, state: tuple) -> bool:
        """Whether the string may end there."""
        if self.names is not None:
            depth, low, high = state
            return low < high and len(self.names[low]) == depth
        enough = state[0] >= self.low
        return enough and all(p.passes(s, state[0]) for p, s in zip(self.patterns, state[1:], strict=True))

    def left(self, state: tuple) -> int:
        """Lower bound on the characters that are still needed."""
        if self.names is not None:
            depth, low, high = state
            return (
                min((len(name) - depth for name in self.names[low : min(high, low + 1000)]), default=0)
                if (high - low <= 1000)
                else int(not self.accepts(state))
            )
        far = max((p.left(s) for p, s in zip(self.patterns, state[1:], strict=True)), default=0.0)
        return max(self.low - state[0], int(far))
