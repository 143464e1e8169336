"""Regular expressions of JSON schemas, as automata over characters that know how far it is to their end."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

from motes.core.errors import MotesError

LAST = 0x10FFFF
MOST = 20_000
"""States of one pattern: each repetition that is counted out costs as many as it has turns."""
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


@dataclass(eq=False)
class Pattern:
    """A regular expression as a nondeterministic automaton; a text passes if it is found anywhere in it.

    Its states are numbers; a set of them, a frozenset, is where a text stands.

    Attributes:
        source: the expression.
        chars: for each state, the edges that read a character: its ranges and the state behind.
        free: for each state, the states that are reached without one.
        begin, end: the same, for edges that are open at the beginning of the text only (`^`) and at its end (`$`).
        first, last: the state in which a text begins, and the one in which it has passed.
    """

    source: str
    chars: list[list[tuple[Ranges, int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)
    begin: list[list[int]] = field(default_factory=list)
    end: list[list[int]] = field(default_factory=list)
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        self.known: dict[tuple[frozenset[int], int], frozenset[int]] = {}

    def state(self) -> int:
        """A new state."""
        if len(self.chars) >= MOST:
            raise MotesError(f"the pattern {self.source[:80]!r} is too large: more than {MOST} states")
        for edges in (self.chars, self.free, self.begin, self.end):
            edges.append([])
        return len(self.chars) - 1

    def closure(self, states: list[int], beginning: bool = False, ending: bool = False) -> set[int]:
        """The states that are reached without a character."""
        seen, todo = set(states), list(states)
        while todo:
            at = todo.pop()
            ways = [*self.free[at], *(self.begin[at] if beginning else ()), *(self.end[at] if ending else ())]
            new = [s for s in ways if s not in seen]
            seen.update(new)
            todo += new
        return seen

    def finish(self) -> Pattern:
        """The distances to the end, once all edges are there."""
        there = [self.last in self.closure([s], ending=True) for s in range(len(self.chars))]
        back: list[list[int]] = [[] for _ in self.chars]
        unread: list[list[int]] = [[] for _ in self.chars]
        for s in range(len(self.chars)):
            for _, to in self.chars[s]:
                back[to].append(s)
            for to in self.free[s]:
                unread[to].append(s)
        self.far = [0.0 if ok else math.inf for ok in there]
        todo = deque(s for s, ok in enumerate(there) if ok)
        while todo:  # edges without a character first
            s = todo.popleft()
            for before in unread[s]:
                if self.far[before] > self.far[s]:
                    self.far[before] = self.far[s]
                    todo.appendleft(before)
            for before in back[s]:
                if self.far[before] > self.far[s] + 1:
                    self.far[before] = self.far[s] + 1
                    todo.append(before)
        self.initial = self._alive(self.closure([self.first], beginning=True))
        self.empty = self.last in self.closure([self.first], beginning=True, ending=True)
        return self

    def _alive(self, states: set[int]) -> frozenset[int]:
        return frozenset(s for s in states if self.far[s] < math.inf)

    def step(self, states: frozenset[int], char: int) -> frozenset[int]:
        """Where a text stands with one more character, a code point; empty where nothing can come of it."""
        key = (states, char if char < 128 else self._alike(char))
        if key not in self.known:
            if len(self.known) > 100_000:
                self.known.clear()
            moved = [to for s in states for ranges, to in self.chars[s] if inside(ranges, char)]
            self.known[key] = self._alive(self.closure(moved))
        return self.known[key]

    def _alike(self, char: int) -> int:
        """A number that characters share which no edge tells apart."""
        if not hasattr(self, "cuts"):
            ends = {p for edges in self.chars for ranges, _ in edges for a, b in ranges for p in (a, b + 1)}
            self.cuts = sorted(ends)
        return -1 - bisect_right(self.cuts, char)

    def passes(self, states: frozenset[int], length: int) -> bool:
        """Whether a text of `length` characters that stands there passes."""
        return self.empty if not length else self.last in self.closure(list(states), ending=True)

    def left(self, states: frozenset[int]) -> float:
        """The fewest characters that make the text pass."""
        return min((self.far[s] for s in states), default=math.inf)

    def matches(self, text: str) -> bool:
        """Whether a whole text passes."""
        states = self.initial
        for char in text:
            states = self.step(states, ord(char))
        return self.passes(states, len(text))


def inside(ranges: Ranges, char: int) -> bool:
    """Whether a code point lies in one of the ranges."""
    at = bisect_right(ranges, (char, LAST + 1)) - 1
    return at >= 0 and ranges[at][0] <= char <= ranges[at][1]


@lru_cache(256)
def compiled(source: str) -> Pattern:
    """The automaton of a regular expression as JSON schemas use them (ECMA-262, without look-around and references).

    Raises:
        MotesError: it does not parse, or uses what an automaton cannot follow.
    """
    return _Parser(source).parse()


class _Parser:
    """Thompson's construction, by recursive descent."""

    def __init__(self, source: str):
        self.source, self.at, self.depth, self.out = source, 0, 0, Pattern(source)

    def fail(self, why: str) -> MotesError:
        return MotesError(f"the pattern {self.source[:80]!r} cannot be read: {why} (character {self.at})")

    def parse(self) -> Pattern:
        out = self.out
        out.first = out.state()
        out.chars[out.first].append((ANY, out.first))
        begin, end = self.alternatives()
        if self.at < len(self.source):
            raise self.fail("a closing bracket has no opening one")
        out.last = out.state()
        out.chars[out.last].append((ANY, out.last))
        out.free[out.first].append(begin)
        out.free[end].append(out.last)
        return out.finish()

    def peek(self) -> str:
        return self.source[self.at] if self.at < len(self.source) else ""

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise self.fail("it ends too early")
        self.at += 1
        return char

    def alternatives(self) -> tuple[int, int]:
        self.depth += 1
        if self.depth > 100:
            raise self.fail("its brackets are nested more than 100 deep")
        begin, end = self.out.state(), self.out.state()
        while True:
            a, b = self.sequence()
            self.out.free[begin].append(a)
            self.out.free[b].append(end)
            if self.peek() != "|":
                self.depth -= 1
                return begin, end
            self.take()

    def sequence(self) -> tuple[int, int]:
        begin = at = self.out.state()
        while self.peek() not in ("", "|", ")"):
            a, b = self.repeated()
            self.out.free[at].append(a)
            at = b
        return begin, at

    def repeated(self) -> tuple[int, int]:
        start = self.at
        piece = self.piece()
        stop = self.at
        low, high = self.quantifier()
        if (low, high) == (1, 1):
            return piece
        if (high if high is not None else low) > MOST:
            raise self.fail(f"more than {MOST} repetitions")
        begin = at = self.out.state()
        copies = [piece] if low or high is None or high else []

        def copy() -> tuple[int, int]:
            if copies:
                return copies.pop()
            back, self.at = self.at, start
            out = self.piece()
            assert self.at == stop
            self.at = back
            return out

        for _ in range(low):
            a, b = copy()
            self.out.free[at].append(a)
            at = b
        end = self.out.state()
        if high is None:
            a, b = copy()
            loop = self.out.state()
            self.out.free[at].append(loop)
            self.out.free[loop] += [a, end]
            self.out.free[b].append(loop)
            return begin, end
        self.out.free[at].append(end)
        for _ in range(high - low):
            a, b = copy()
            self.out.free[at].append(a)
            self.out.free[b].append(end)
            at = b
        return begin, end

    def quantifier(self) -> tuple[int, int | None]:
        char = self.peek()
        low, high = 1, 1
        if char in ("*", "+", "?") and char:
            self.take()
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char == "{" and (found := self.braces()) is not None:
            low, high = found
        else:
            return low, high
        if self.peek() == "?":  # which match is found first does not matter
            self.take()
        if self.peek() in ("*", "+") and self.peek():
            raise self.fail("nothing to repeat")
        return low, high

    def braces(self) -> tuple[int, int | None] | None:
        """The bounds of {m}, {m,} or {m,n}; None where the brace is a character."""
        close = self.source.find("}", self.at)
        parts = self.source[self.at + 1 : close].split(",") if close >= 0 else []
        if not 1 <= len(parts) <= 2 or not parts[0].isascii() or not parts[0].isdigit():
            return None
        if parts[1:] not in ([], [""]) and not (parts[1].isascii() and parts[1].isdigit()):
            return None
        if max(map(len, parts)) > 6:
            raise self.fail(f"more than {MOST} repetitions")
        self.at = close + 1
        low = int(parts[0])
        high = low if len(parts) == 1 else int(parts[1]) if parts[1] else None
        if high is not None and high < low:
            raise self.fail("the bounds of a repetition are in the wrong order")
        return low, high

    def piece(self) -> tuple[int, int]:
        char = self.take()
        if char == "(":
            return self.group()
        if char in "^$":
            a, b = self.out.state(), self.out.state()
            (self.out.begin if char == "^" else self.out.end)[a].append(b)
            return a, b
        if char in "*+?":
            raise self.fail("nothing to repeat")
        if char == ".":
            return self.reads(negated(LINES))
        if char == "[":
            return self.reads(self.bracket())
        if char == "\\":
            return self.reads(self.escape())
        return self.reads(((ord(char), ord(char)),))

    def reads(self, ranges: Ranges) -> tuple[int, int]:
        a, b = self.out.state(), self.out.state()
        self.out.chars[a].append((ranges, b))
        return a, b

    def group(self) -> tuple[int, int]:
        if self.peek() == "?":
            self.take()
            kind = self.take()
            if kind == "<" and self.peek() not in ("=", "!"):
                while self.take() != ">":
                    pass
            elif kind != ":":
                raise self.fail("look-around and flags are not known")
        out = self.alternatives()
        if self.peek() != ")":
            raise self.fail("a bracket is not closed")
        self.take()
        return out

    def escape(self, within: bool = False) -> Ranges:
        char = self.take()
        classes = {"d": DIGIT, "w": WORD, "s": SPACE}
        if char.lower() in classes:
            ranges = classes[char.lower()]
            return negated(ranges) if char.isupper() else ranges
        if char in CONTROL or (within and char == "b"):
            code = CONTROL.get(char, 8)
        elif char in "xu":
            code = self.hexadecimal(2 if char == "x" else 4)
        elif char == "c" and self.peek().isascii() and self.peek().isalpha():
            code = ord(self.take()) % 32
        elif char.isalnum():
            raise self.fail(f"the escape \\{char} is not known")
        else:
            code = ord(char)
        return ((code, code),)

    def hexadecimal(self, digits: int) -> int:
        if digits == 4 and self.peek() == "{":
            close = self.source.find("}", self.at)
            text, self.at = self.source[self.at + 1 : close], close + 1
        else:
            text, self.at = self.source[self.at : self.at + digits], self.at + digits
            text = text if len(text) == digits else ""
        if not text or len(text) > 6 or set(text) - set("0123456789abcdefABCDEF") or int(text, 16) > LAST:
            raise self.fail("an escape needs its hexadecimal digits")
        return int(text, 16)

    def bracket(self) -> Ranges:
        ranges: list[tuple[int, int]] = []
        negate = self.peek() == "^"
        if negate:
            self.take()
        while self.peek() != "]":
            low = self.member()
            if self.peek() == "-" and self.source[self.at + 1 : self.at + 2] not in ("]", ""):
                self.take()
                high = self.member()
                if len(low) > 1 or len(high) > 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    ranges += [*low, (45, 45), *high]
                    continue
                if high[0][0] < low[0][0]:
                    raise self.fail("a range of characters is in the wrong order")
                ranges.append((low[0][0], high[0][0]))
            else:
                ranges += low
        self.take()
        return negated(joined(ranges)) if negate else joined(ranges)

    def member(self) -> Ranges:
        char = self.take()
        return self.escape(within=True) if char == "\\" else ((ord(char), ord(char)),)
