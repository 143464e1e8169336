"""JSON that satisfies a schema, byte by byte: where a text stands, and what may come next.

A place in a text is a `Cell`: a frame of what is being written, and the cell of what stands around it. A text stands in
a set of cells, one for each way in which the schema's alternatives can still be met. JSON itself leaves no choice, so
the cells of a set differ in their schemas only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from motes.language.constraints.schema.book import Book
from motes.language.constraints.schema.numbers import Numbers
from motes.language.constraints.schema.partial import characters
from motes.language.constraints.schema.ranges import Ranges, between
from motes.language.constraints.schema.shapes import Array, Node, Object, Part, Shape, Word
from motes.language.constraints.schema.strings import CLOSED, OUTSIDE, Texts, Within, read

SPACE = frozenset(b" \t\n\r")
QUOTE, COMMA, COLON = b'",:'
OPENING = {Object: ord("{"), Array: ord("["), Texts: QUOTE}


@dataclass(frozen=True)
class Value:
    """A value is due; space may come before it."""

    node: Node


@dataclass(frozen=True)
class Rest:
    """What is left of null, true or false."""

    bytes: bytes


@dataclass(frozen=True)
class InString:
    """Within a string."""

    texts: Texts
    state: tuple
    within: Within


@dataclass(frozen=True)
class InNumber:
    """Within a number."""

    numbers: Numbers
    state: str


@dataclass(frozen=True)
class InObject:
    """Within an object, between its parts.

    Attributes:
        shape: what it may be.
        phase: "first" after the opening bracket, "after" a value, "next" after a comma, "colon" after a key.
        seen: the keys so far; of the others that no schema names only their number, `more`, where that is enough.
        child: after a key, what the schema says of its value.
    """

    shape: Object
    phase: str
    seen: frozenset[str]
    more: int = 0
    child: Node | None = None


@dataclass(frozen=True)
class InKey:
    """Within a key; `text` is None where it begins like no key that is known, and no more has to be known of it."""

    text: str | None
    within: Within


@dataclass(frozen=True)
class InArray:
    """Within an array, between its items; `count` of them are complete."""

    shape: Array
    phase: str
    count: int


@dataclass(frozen=True)
class End:
    """Behind the whole value."""


Frame = Value | Rest | InString | InNumber | InObject | InKey | InArray | End


@dataclass(eq=False)
class Cell:
    """A frame and what stands around it."""

    frame: Frame
    parent: Cell | None
    memory: dict[str, Any] = field(default_factory=dict)


Cells = frozenset[Cell]


class Automaton:
    """The steps of all texts under one schema. Cells are made once each, so that equal ones are the same object."""

    def __init__(self, book: Book):
        self.book = book
        self.cells: dict[tuple[Any, ...], Cell] = {}
        end = self.cell(End(), None)
        self.start: Cells = frozenset([self.cell(Value(book.root), end)])

    def cell(self, frame: Frame, parent: Cell | None) -> Cell:
        key = (type(frame), *(_key(v) for v in vars(frame).values()), id(parent))
        if key not in self.cells:
            self.cells[key] = Cell(frame, parent)
        return self.cells[key]

    def step(self, cells: Cells, byte: int, coarse: bool = False) -> Cells:
        """Where a text stands with one more byte; empty: nowhere.

        Args:
            coarse: forget the text of keys that no schema names once they differ from all that are known, which makes
                many places one. Two such keys could then be equal, and are not refused.
        """
        out: list[Cell] = []
        for cell in cells:
            self._step(cell, byte, coarse, out)
        return frozenset(out)

    def accepts(self, cells: Cells) -> bool:
        """Whether a text may end there."""
        return any(self._ends(cell) for cell in cells)

    def coarse(self, cells: Cells) -> Cells:
        """The same places with the text of keys forgotten where it does not matter."""
        return frozenset(
            self.cell(InKey(self._shortened(c.frame.text, c.parent), c.frame.within), c.parent)
            if isinstance(c.frame, InKey) and c.frame.text is not None and c.parent is not None
            else c
            for c in cells
        )

    def _ends(self, cell: Cell) -> bool:
        frame = cell.frame
        if isinstance(frame, InNumber) and frame.numbers.accepts(frame.state):
            return cell.parent is not None and isinstance(cell.parent.frame, End)
        return isinstance(frame, End)

    # ------------------------------------------------------------ one byte

    def _step(self, cell: Cell, byte: int, coarse: bool, out: list[Cell]) -> None:
        frame, parent = cell.frame, cell.parent
        if isinstance(frame, InString):
            found = read(frame.within, byte)
            if found is None:
                return
            within, char = found
            if char is None:
                if frame.texts.goes_on(frame.state, characters(within)):
                    out.append(self.cell(InString(frame.texts, frame.state, within), parent))
            elif char == CLOSED:
                if frame.texts.accepts(frame.state):
                    out.append(self.closed(parent))
            elif (state := frame.texts.step(frame.state, char)) is not None:
                out.append(self.cell(InString(frame.texts, state, OUTSIDE), parent))
        elif isinstance(frame, Value):
            if byte in SPACE:
                out.append(cell)
            else:
                for shape in frame.node.shapes:
                    self._begin(shape, byte, parent, out)
        elif isinstance(frame, InNumber):
            state = frame.numbers.step(frame.state, byte)
            if state is not None:
                out.append(self.cell(InNumber(frame.numbers, state), parent))
            elif (byte in SPACE or byte in b",]}") and frame.numbers.accepts(frame.state):
                self._step(self.closed(parent), byte, coarse, out)
        elif isinstance(frame, Rest):
            if frame.bytes[0] == byte:
                left = frame.bytes[1:]
                out.append(self.cell(Rest(left), parent) if left else self.closed(parent))
        elif isinstance(frame, InKey):
            self._key(frame, parent, byte, coarse, out)
        elif byte in SPACE:
            out.append(cell)
        elif isinstance(frame, InObject):
            self._object(frame, parent, byte, out)
        elif isinstance(frame, InArray):
            self._array(frame, parent, byte, out)

    def _begin(self, shape: Shape, byte: int, parent: Cell | None, out: list[Cell]) -> None:
        """The first byte of a value."""
        if isinstance(shape, Word):
            if shape.bytes[0] == byte:
                out.append(self.cell(Rest(shape.bytes[1:]), parent))
        elif isinstance(shape, Numbers):
            if (state := shape.step("", byte)) is not None:
                out.append(self.cell(InNumber(shape, state), parent))
        elif OPENING[type(shape)] != byte:
            return
        elif isinstance(shape, Texts):
            out.append(self.cell(InString(shape, shape.start(), OUTSIDE), parent))
        elif isinstance(shape, Object):
            if self.book.inhabited(shape):
                out.append(self.cell(InObject(shape, "first", frozenset()), parent))
        elif self.book.inhabited(shape):
            out.append(self.cell(InArray(shape, "first", 0), parent))

    def closed(self, parent: Cell | None) -> Cell:
        """The value is complete: what stands around it goes on."""
        assert parent is not None
        frame = parent.frame
        if isinstance(frame, InObject):
            return self.cell(InObject(frame.shape, "after", frame.seen, frame.more), parent.parent)
        if isinstance(frame, InArray):
            most = max(len(frame.shape.first), frame.shape.low)
            count = frame.count + 1 if frame.shape.high < float("inf") else min(frame.count + 1, most)
            return self.cell(InArray(frame.shape, "after", count), parent.parent)
        return parent

    def _object(self, frame: InObject, parent: Cell | None, byte: int, out: list[Cell]) -> None:
        shape, count = frame.shape, len(frame.seen) + frame.more
        if frame.phase == "colon":
            if byte == COLON and frame.child is not None:
                around = self.cell(InObject(shape, "after", frame.seen, frame.more), parent)
                out.append(self.cell(Value(frame.child), around))
        elif byte == ord("}"):
            if frame.phase != "next" and shape.required <= frame.seen and shape.low <= count <= shape.high:
                out.append(self.closed(parent))
        elif byte == COMMA:
            if frame.phase == "after" and room(shape, frame.seen, count):
                out.append(self.cell(InObject(shape, "next", frame.seen, frame.more), parent))
        elif byte == QUOTE and frame.phase in ("first", "next") and room(shape, frame.seen, count):
            around = self.cell(InObject(shape, "key", frame.seen, frame.more), parent)
            out.append(self.cell(InKey("", OUTSIDE), around))

    def _key(self, frame: InKey, parent: Cell | None, byte: int, coarse: bool, out: list[Cell]) -> None:
        assert parent is not None and isinstance(parent.frame, InObject)
        around, found = parent.frame, read(frame.within, byte)
        if found is None:
            return
        within, char = found
        if char is None:
            if frame.text is None or self._goes_on(around, frame.text, characters(within)):
                out.append(self.cell(InKey(frame.text, within), parent))
        elif char == CLOSED:
            child = self._child(around, frame.text)
            if child is not None:
                seen = around.seen if frame.text is None else around.seen | {frame.text}
                more = around.more + (frame.text is None)
                out.append(self.cell(InObject(around.shape, "colon", seen, more, child), parent.parent))
        else:
            text = None if frame.text is None else frame.text + chr(char)
            if text is not None and not self._hope(around, text):
                return
            out.append(self.cell(InKey(self._shortened(text, parent) if coarse else text, OUTSIDE), parent))

    def _child(self, around: InObject, text: str | None) -> Node | None:
        """What the schema says of the value of a whole key; None: the key may not stand here."""
        shape, count = around.shape, len(around.seen) + around.more
        if text is None:
            return self.book.both([part.rest for part in shape.parts])
        if text in around.seen or not shape.fits(text):
            return None
        if text not in shape.required and not spare(shape, around.seen, count):
            return None
        child = shape.member(text)
        return child if child.possible else None

    def _hope(self, around: InObject, text: str) -> bool:
        """Whether a key that begins so can be one that may stand here."""
        shape, count = around.shape, len(around.seen) + around.more
        may = spare(shape, around.seen, count)
        if may and shape.free and all(_begun(part, text) for part in shape.parts):
            if text not in around.seen or self._goes_on(around, text, characters(OUTSIDE)):
                return True
        return any(
            key.startswith(text) and key not in around.seen and (may or key in shape.required) for key in shape.named
        )

    def _goes_on(self, around: InObject, text: str, ranges: Ranges) -> bool:
        """Whether one of these characters may come next in a key."""
        named = {ord(key[len(text)]) for key in around.shape.named if key.startswith(text) and len(key) > len(text)}
        cuts = {cut for part in around.shape.parts for cut in part.cuts}
        cuts |= named | {char + 1 for char in named}
        return any(self._hope(around, text + chr(c)) for a, b in ranges for c in between(sorted(cuts), a, b))

    def _shortened(self, text: str | None, parent: Cell | None) -> str | None:
        """The text of a key, or None where no more of it has to be known."""
        assert parent is not None and isinstance(parent.frame, InObject)
        around = parent.frame
        if text is None or not around.shape.plain or not around.shape.free:
            return text
        known = any(key.startswith(text) for part in around.shape.parts for key in part.named)
        known = known or any(key.startswith(text) for key in around.shape.required | around.seen)
        return text if known else None

    def _array(self, frame: InArray, parent: Cell | None, byte: int, out: list[Cell]) -> None:
        shape = frame.shape
        if byte == ord("]"):
            if frame.phase != "next" and shape.low <= frame.count <= shape.high:
                out.append(self.closed(parent))
            return
        following = shape.item(frame.count)
        if frame.count >= shape.high or not following.possible:
            return
        if frame.phase == "after":
            if byte == COMMA:
                out.append(self.cell(InArray(shape, "next", frame.count), parent))
        else:  # the first byte of an item
            around = self.cell(InArray(shape, "item", frame.count), parent)
            for option in following.shapes:
                self._begin(option, byte, around, out)


def room(shape: Object, seen: frozenset[str], count: int) -> bool:
    """Whether another member may come: one that has to, or any other."""
    if not shape.required <= seen:
        return True
    return spare(shape, seen, count) and (shape.free or any(key not in seen for key in shape.named))


def spare(shape: Object, seen: frozenset[str], count: int) -> bool:
    """Whether a member may come that does not have to, with those that still have to."""
    return count + len(shape.required - seen) < shape.high


def _begun(part: Part, text: str) -> bool:
    """Whether a key that no schema names may begin so, as far as one schema tells."""
    if part.names is not part.names.book.any and not any(
        isinstance(shape, Texts) and shape.begun(text) for shape in part.names.shapes
    ):
        return False
    if part.rest.possible:
        return True
    for pattern, node in part.patterns:
        states = pattern.initial
        for char in text:
            states = pattern.step(states, ord(char))
        if states and node.possible:
            return True
    return False


def _key(value: Any) -> Any:
    """What tells frames apart: shapes by identity, since a list of names is long."""
    return id(value) if isinstance(value, (Node, Object, Array, Texts, Numbers)) else value
