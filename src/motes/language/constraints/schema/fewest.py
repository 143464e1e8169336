"""A lower bound on the tokens that a text still needs, so that none is begun that cannot end in time."""

from __future__ import annotations

import math
import re
from weakref import WeakKeyDictionary

from motes.language.constraints.pieces import Pieces
from motes.language.constraints.schema.automaton import (
    Automaton,
    Cell,
    Cells,
    Frame,
    InArray,
    InKey,
    InNumber,
    InObject,
    InString,
    Rest,
    Value,
)
from motes.language.constraints.schema.numbers import Numbers
from motes.language.constraints.schema.shapes import Array, Node, Object, Shape, Word
from motes.language.constraints.schema.strings import ESCAPES, Texts

LONG = 64
"""Bytes of a stretch that are looked at; the bound leaves out the rest."""
FEW = 24
"""Alternatives of a value that are looked at one by one."""
ROUNDS = 40
"""Values within each other beyond which the bound leaves them out."""


class Parts:
    """The pieces of a vocabulary without space, and what they begin and end with."""

    def __init__(self, pieces: Pieces):
        self.longest: int = max(pieces.longest, 1)
        self.whole: set[bytes] = {squeezed(text) for text in pieces.tokens_of} - {b""}
        self.split: bool = any(PARTIAL.search(text) for text in pieces.tokens_of)
        """Whether some token ends within an escape, so that what no tokens spell may still be written."""
        self.begun: set[bytes] = {text[:k] for text in self.whole for k in range(1, min(len(text), LONG + 1))}
        self.reached: set[bytes] = {text[-k:] for text in self.whole for k in range(1, min(len(text), LONG + 1))}


_PARTS: WeakKeyDictionary[Pieces, Parts] = WeakKeyDictionary()


class Fewest:
    """The bound for the places of an automaton, with the pieces that a vocabulary's tokens write.

    What is left to write is a sequence of stretches, each of which must begin in one of a few ways (`"age":` and a
    digit, say). The tokens that begin within a stretch are counted, as if those before had reached into it as far as
    any token can, and the last one out of it; the sum over the stretches is the bound. Space between the parts is left
    out on both sides, and an escape that a single token writes is counted as the character that it stands for.
    """

    automaton: Automaton
    parts: Parts
    depth: int

    def __init__(self, automaton: Automaton, pieces: Pieces):
        if pieces not in _PARTS:
            _PARTS[pieces] = Parts(pieces)
        self.automaton, self.book, self.parts = automaton, automaton.book, _PARTS[pieces]
        self.depth = 0
        self.values: dict[Node, int] = {}
        self.openings: dict[Shape, tuple[bytes, int]] = {}
        self.member_of: dict[tuple[Object, str], int] = {}
        self.stretches: dict[tuple[bytes, bool], float] = {}

    def __call__(self, cells: Cells) -> int:
        """The bound for a text that stands in these cells: 0 if it may end there."""
        if self.automaton.accepts(cells):
            return 0
        return max(1, min((self.cell(cell, True) for cell in cells), default=1))

    def cell(self, cell: Cell | None, first: bool) -> int:
        """The bound for a cell; `first`: a token begins just here."""
        if cell is None:
            return 0
        known = cell.memory.get("fewest", {})
        if first not in known:
            around, total = cell, 0
            while around is not None:  # a loop, since values can stand deep in each other
                inner = around.memory.get("fewest", {})
                if not (first and around is cell) and False in inner:
                    total += inner[False]
                    break
                total += self.frame(around.frame, first and around is cell, around.parent)
                around = around.parent
            known = {**known, first: total}
            cell.memory["fewest"] = known
        return known[first]

    def frame(self, frame: Frame, first: bool, parent: Cell | None) -> int:
        """The bound for what is left of a frame alone."""
        if isinstance(frame, Value):
            return self.value(frame.node)
        if isinstance(frame, Rest):
            return finite(self.stretch([frame.bytes], first))
        if isinstance(frame, InString):
            left = frame.texts.left(frame.state)
            if frame.texts.names is not None and first and not frame.within:
                depth, low, high = frame.state
                if high - low <= FEW:
                    return finite(
                        self.stretch([quoted(name[depth:]) + b'"' for name in frame.texts.names[low:high]], True)
                    )
            return max(1 if first else 0, math.ceil((left + 1) / self.parts.longest) if first else 0)
        if isinstance(frame, InNumber):
            return 0 if frame.numbers.accepts(frame.state) else 1 if first else 0
        if isinstance(frame, InKey):
            return self.key(frame, first, parent)
        if isinstance(frame, InObject):
            if frame.phase == "key":  # counted with the key
                return 0
            own = 0 if frame.child is None else self.value(frame.child)
            return own + self.members(frame.shape, frame.seen)
        if isinstance(frame, InArray):
            count = frame.count + (frame.phase == "item")
            return self.items(frame.shape, count)
        return 0

    def members(self, shape: Object, seen: frozenset[str], but: str | None = None) -> int:
        """The members that still have to come."""
        return sum(self.member(shape, key) for key in shape.required - seen if key != but)

    def member(self, shape: Object, key: str) -> int:
        if (shape, key) not in self.member_of:
            self.member_of[shape, key] = self.with_value(quoted(key, True), shape.member(key), False)
        return self.member_of[shape, key]

    def key(self, frame: InKey, first: bool, parent: Cell | None) -> int:
        """The rest of a key and its value, and the other members."""
        assert parent is not None and isinstance(parent.frame, InObject)
        shape, seen = parent.frame.shape, parent.frame.seen
        others = self.members(shape, seen)
        if frame.text is None:
            return others
        if frame.within:
            return self.fewest_but(shape, seen)
        found = [
            self.with_value(quoted(key)[len(quoted(frame.text)) :] + b'":', shape.member(key), first)
            + others
            - (self.member(shape, key) if key in shape.required else 0)
            for key in shape.named
            if key.startswith(frame.text) and key not in seen
        ]
        if shape.free:
            found.append(others)
        return min(found, default=others)

    def fewest_but(self, shape: Object, seen: frozenset[str]) -> int:
        """The members that still have to come, without the one that needs most."""
        each = [self.member(shape, key) for key in shape.required - seen]
        return sum(each) - max(each, default=0)

    def with_value(self, written: bytes, node: Node, first: bool) -> int:
        """A stretch that a value follows: together where the value begins in few ways."""
        ways = self.beginnings(node)
        if ways is None:
            return finite(self.stretch([written], first)) + self.value(node)
        return finite(min(self.stretch([written + way], first) + inner for way, inner in ways))

    def beginnings(self, node: Node) -> list[tuple[bytes, int]] | None:
        """How a value can begin, each with the bound for what follows; None: in too many ways."""
        out: list[tuple[bytes, int]] = []
        for shape in node.shapes:
            if isinstance(shape, Word):
                out.append((shape.bytes, 0))
            elif isinstance(shape, Texts):
                if shape.names is not None and len(shape.names) <= FEW:
                    out += [(b'"' + quoted(name) + b'"', 0) for name in shape.names]
                else:
                    out.append((b'"', 0))
            elif isinstance(shape, Numbers):
                out += [(c.encode(), 0) for c in "-0123456789" if shape.step("", ord(c)) is not None]
            elif self.book.inhabited(shape):
                out.append(self.opening(shape))
        return out if 0 < len(out) <= FEW else None

    def opening(self, shape: Array | Object) -> tuple[bytes, int]:
        """The bracket that opens an array or an object, and the bound for what has to stand in it."""
        if shape not in self.openings:
            bracket = b"[" if isinstance(shape, Array) else b"{"
            self.openings[shape] = bracket, 0  # for values that stand in themselves
            if self.depth < ROUNDS:
                self.depth += 1
                inner = self.items(shape, 0) if isinstance(shape, Array) else self.members(shape, frozenset())
                self.openings[shape] = bracket, inner
                self.depth -= 1
        return self.openings[shape]

    def items(self, shape: Array, count: int) -> int:
        """The items that still have to come."""
        first = sum(self.value(node) for node in shape.first[count : shape.low])
        return first + max(0, shape.low - max(count, len(shape.first))) * self.value(shape.rest)

    def value(self, node: Node) -> int:
        """A value, wherever the token before it ends."""
        if node not in self.values:
            ways = self.beginnings(node)
            self.values[node] = 0 if ways is None else finite(min(self.stretch([w], False) + more for w, more in ways))
        return self.values[node]

    def stretch(self, ways: list[bytes], first: bool) -> float:
        """The fewest tokens that begin within a stretch, the best of several; inf: none spell it."""
        return min(self._stretch(squeezed(way)[:LONG], first) for way in ways)

    def _stretch(self, text: bytes, first: bool) -> float:
        key = (text, first)
        if key not in self.stretches:
            n = len(text)
            cost = [math.inf] * n + [0]
            for at in range(n - 1, -1, -1):
                ends = range(at + 1, min(n, at + self.parts.longest) + 1)
                own = min((cost[e] for e in ends if text[at:e] in self.parts.whole), default=math.inf)
                cost[at] = 1 + (0 if text[at:] in self.parts.begun else own)
            starts = [0] if first else [k for k in range(n + 1) if not k or text[:k] in self.parts.reached]
            least = min(cost[k] for k in starts)
            self.stretches[key] = 0 if least == math.inf and self.parts.split else least
        return self.stretches[key]


def finite(least: float) -> int:
    """A bound that holds even where no tokens were found to spell what is needed."""
    return 0 if least == math.inf else int(least)


def quoted(text: str, whole: bool = False) -> bytes:
    """The characters of a string as JSON writes them in the fewest bytes; `whole`: with quotes and a colon."""
    out = "".join({'"': '\\"', "\\": "\\\\"}.get(c, c if c >= " " else f"\\u{ord(c):04x}") for c in text).encode()
    return b'"' + out + b'":' if whole else out


def squeezed(text: bytes) -> bytes:
    """Bytes without space, and with whole escapes as the characters that they stand for."""
    if b"\\" in text:
        text = ESCAPED.sub(_character, text)
    return bytes(c for c in text if c not in b" \t\n\r")


PARTIAL = re.compile(rb"(?<!\\)(?:\\\\)*\\(?:u[0-9a-fA-F]{0,3})?$")
ESCAPED = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


def _character(found: re.Match[bytes]) -> bytes:
    digits, letter = found.groups()
    if digits is not None:
        text = chr(int(digits, 16)).encode("utf-8", "surrogatepass")
    else:
        text = bytes([ESCAPES.get(letter[0], letter[0])])
    return b"\\" + text if text in (b'"', b"\\") else text
