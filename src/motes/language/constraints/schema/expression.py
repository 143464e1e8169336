"""Regular expressions as JSON schemas write them, made into automata."""

from __future__ import annotations

import re
from functools import lru_cache

from motes.errors import MotesError
from motes.language.constraints.schema.pattern import MOST, Pattern
from motes.language.constraints.schema.ranges import (
    ANY,
    CONTROL,
    DIGIT,
    LAST,
    LINES,
    SPACE,
    WORD,
    Ranges,
    joined,
    negated,
)


@lru_cache(256)
def compiled(source: str) -> Pattern:
    """The automaton of a regular expression as JSON schemas use them (ECMA-262, without look-around and references).

    Raises:
        MotesError: it does not parse, or uses what an automaton cannot follow.
    """
    return _Parser(source).parse()


class _Parser:
    """Thompson's construction, by recursive descent.

    Args:
        source: the expression.
        wide: whether classes that hold any character beyond ASCII hold all of these.
    """

    def __init__(self, source: str, wide: bool = False):
        self.source, self.at, self.depth, self.out, self.wide = source, 0, 0, Pattern(source), wide

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
            return self.reads(ANY if self.wide else negated(LINES))
        if char == "[":
            return self.reads(self.bracket())
        if char == "\\":
            is_class = self.wide and self.source[self.at : self.at + 1] in tuple("dwsDWS")
            return self.reads(joined([*self.escape(), *BEYOND]) if is_class else self.escape())
        return self.reads(((ord(char), ord(char)),))

    def reads(self, ranges: Ranges) -> tuple[int, int]:
        if self.wide and ranges and ranges[-1][1] >= 128:
            ranges = joined([*ranges, *BEYOND])
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
        start = self.at
        ranges: list[tuple[int, int]] = []
        negate = self.peek() == "^"
        if negate:
            self.take()
        while self.peek() != "]":
            low = self.member()
            if self.peek() == "-" and self.source[self.at + 1 : self.at + 2] not in ("]", ""):
                self.take()
                high = self.member()
                first, last = single(low), single(high)
                if first is None or last is None:
                    ranges += [*low, (45, 45), *high]
                    continue
                if last < first:
                    raise self.fail("a range of characters is in the wrong order")
                ranges.append((first, last))
            else:
                ranges += low
        self.take()
        found = negated(joined(ranges)) if negate else joined(ranges)
        every = self.wide and (negate or "\\" in self.source[start : self.at])
        return joined([*found, *BEYOND]) if every else found

    def member(self) -> Ranges:
        char = self.take()
        return self.escape(within=True) if char == "\\" else ((ord(char), ord(char)),)


def single(ranges: Ranges) -> int | None:
    """The one character of a set; None if it has another number of them."""
    return ranges[0][0] if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else None


BEYOND: Ranges = ((128, LAST),)
CLASS, ESCAPED = r"[^\\\[\]&~^-]", r"\\[dwsDWSnrt]|\\[^\w\s<>]"
PLAIN = re.compile(
    rf"(?:(?:[^\\\[\]^$(){{}}.*+?|]|\.|{ESCAPED}|\[\^?-?(?:{CLASS}(?:-{CLASS})?|{ESCAPED})+-?\]|\((?:\?:)?(?!\?)|\)|\|)"
    r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})?(?![*+?{]))*"
)
"""Expressions that mean the same to ECMA-262 and to Rust: no anchors, flags, names, properties or sets of sets."""


@lru_cache(64)
def widened(source: str) -> Pattern | None:
    """An automaton that passes every text that matches a whole expression of Rust's, and others; None: it is not plain.

    A class that holds any character beyond ASCII, by Unicode's tables too, holds all of these.
    """
    if PLAIN.fullmatch(source) is None:
        return None
    try:
        return _Parser(f"^(?:{source})$", wide=True).parse()
    except (MotesError, RecursionError):
        return None
