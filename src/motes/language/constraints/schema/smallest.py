"""A short text that satisfies a schema, for messages that say how long one has to be."""

from __future__ import annotations

import json
import math

from motes.errors import MotesError
from motes.language.constraints.schema.automaton import Automaton
from motes.language.constraints.schema.numbers import Numbers
from motes.language.constraints.schema.pattern import Pattern
from motes.language.constraints.schema.shapes import Array, Node, Object, Shape, Word
from motes.language.constraints.schema.strings import Texts

LONGEST = 2000
"""Characters of a text beyond which none is written."""


def smallest(automaton: Automaton) -> str | None:
    """A short text, or None where none was found; it is judged by the automaton itself."""
    try:
        text = value(automaton.book.root)
    except (RecursionError, MotesError):
        return None
    cells = automaton.start
    for byte in (text or "").encode():
        cells = automaton.step(cells, byte)
    return text if text and automaton.accepts(cells) else None


def value(node: Node) -> str | None:
    """A short value, of the shapes the one that needs the fewest bytes."""
    for shape in sorted(node.shapes, key=lambda s: _size(node, s)):
        if _size(node, shape) < LONGEST and (text := written(shape)) is not None:
            return text
    return None


def _size(node: Node, shape: Shape) -> float:
    if isinstance(shape, (Array, Object)):
        inner = (
            [shape.item(i) for i in range(min(shape.low, len(shape.first) + 1))]
            if isinstance(shape, Array)
            else [shape.member(key) for key in sorted(shape.required)]
        )
        return 2 + sum(node.book.size(child) for child in inner)
    return 4 if isinstance(shape, Word) else 1


def written(shape: Shape) -> str | None:
    """A short value of a shape."""
    if isinstance(shape, Word):
        return shape.bytes.decode()
    if isinstance(shape, Numbers):
        bounds = [str(b) for b in (shape.low, shape.high) if b is not None]
        tried = [str(v) for v in shape.values or ()] + [
            *"0123456789",
            *(str(k) for k in range(10, 100)),
            "0.5",
            *bounds,
        ]
        return next((text for text in tried if _fits(shape, text)), None)
    if isinstance(shape, Texts):
        text = min(shape.names, key=len) if shape.names is not None else letters(shape)
        return None if text is None else json.dumps(text, ensure_ascii=False)
    if isinstance(shape, Array):
        items = [value(shape.item(i)) for i in range(shape.low)] if shape.low < LONGEST else [None]
        return None if None in items else f"[{', '.join(item or '' for item in items)}]"
    keys = sorted(shape.required)
    keys += [key for key in (*shape.named, *"abcdefgh") if key not in keys][: max(0, shape.low - len(keys))]
    members = [(key, value(shape.member(key))) for key in keys]
    if any(text is None for _, text in members):
        return None
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {text}" for key, text in members) + "}"


def _fits(numbers: Numbers, text: str) -> bool:
    state: str | None = ""
    for char in text:
        state = None if state is None else numbers.step(state, ord(char))
    return state is not None and numbers.accepts(state)


def letters(texts: Texts) -> str | None:
    """A short string: each character the one that brings it nearest to its end."""
    state, out = texts.start(), ""
    while not texts.accepts(state) and len(out) < LONGEST:
        known = {first for pattern in texts.patterns for first in _firsts(pattern)}
        after = [(texts.left(s), c) for c in sorted({ord("a"), *known}) if (s := texts.step(state, c)) is not None]
        if not after:
            return None
        char = min(after)[1]
        following = texts.step(state, char)
        if following is None or (following == state and len(out) >= texts.low):
            return None
        state, out = following, out + chr(char)
    return out if texts.accepts(state) else None


def _firsts(pattern: Pattern) -> set[int]:
    """The first character of each range that the pattern reads."""
    return {a for edges in pattern.chars for ranges, _ in edges for a, _ in ranges if 32 <= a < math.inf}
