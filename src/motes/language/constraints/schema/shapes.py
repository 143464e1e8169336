"""What a value may be under a JSON schema: a list of shapes, each of one kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from motes.errors import MotesError
from motes.language.constraints.schema.numbers import Numbers
from motes.language.constraints.schema.pattern import Pattern
from motes.language.constraints.schema.strings import Texts

MOST = 2000
"""Shapes of one value, after all combinations of alternatives."""


class Nodes(Protocol):
    """Where nodes come from, each once."""

    any: Node

    def both(self, nodes: list[Node]) -> Node:
        """What satisfies all of some nodes."""
        ...

    def shapes(self, schema: Schema, path: tuple[Schema, ...]) -> list[Shape]:
        """The shapes of one schema."""
        ...

    def size(self, node: Node) -> float:
        """The fewest bytes of a value that satisfies a node, or a number below it; inf: there is none."""
        ...


@dataclass(eq=False)
class Schema:
    """One schema of a document: what is written, and where."""

    written: Any
    place: str


@dataclass(eq=False)
class Node:
    """A value that satisfies all of some schemas; its shapes are found when they are asked for."""

    book: Nodes
    schemas: tuple[Schema, ...]

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        out: list[Shape] | None = None
        for schema in self.schemas:
            found = self.book.shapes(schema, ())
            out = found if out is None else meet(self.book, out, found)
        return tuple(out or ())

    @property
    def possible(self) -> bool:
        """Whether some value, of finite size, satisfies it."""
        return self.book.size(self) < math.inf


@dataclass(frozen=True)
class Word:
    """null, true or false."""

    bytes: bytes


@dataclass(frozen=True, eq=False)
class Array:
    """An array: the schemas of its first items and of the others, and how many there may be."""

    first: tuple[Node, ...]
    rest: Node
    low: int
    high: float

    def item(self, at: int) -> Node:
        return self.first[at] if at < len(self.first) else self.rest


@dataclass(frozen=True, eq=False)
class Part:
    """What one schema says of the members of an object."""

    named: dict[str, Node]
    patterns: tuple[tuple[Pattern, Node], ...]
    rest: Node
    names: Node

    def member(self, key: str) -> list[Node]:
        out = [self.named[key]] if key in self.named else []
        out += [node for pattern, node in self.patterns if pattern.matches(key)]
        return out or [self.rest]

    @cached_property
    def cuts(self) -> frozenset[int]:
        """Characters between two of which no pattern of a key, and no list of keys, tells apart."""
        texts = [s for s in self.names.shapes if isinstance(s, Texts)] if self.names is not self.names.book.any else []
        patterns = [pattern for pattern, _ in self.patterns] + [p for s in texts for p in s.patterns]
        listed = {ord(char) for s in texts for name in s.names or () for char in name}
        return frozenset({cut for p in patterns for cut in p.cuts} | listed | {char + 1 for char in listed})


@dataclass(frozen=True, eq=False)
class Object:
    """An object: what several schemas together say of its members."""

    parts: tuple[Part, ...]
    required: frozenset[str]
    low: int
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", {})

    known: dict[str, Node] = field(init=False, repr=False)

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The keys that are known by name and can have a value, sorted."""
        names = {key for part in self.parts for key in part.named} | self.required
        return tuple(sorted(key for key in names if self.member(key).possible and self.fits(key)))

    @cached_property
    def free(self) -> bool:
        """Whether there may be keys that no schema names."""
        return all(part.patterns or part.rest.possible for part in self.parts)

    @cached_property
    def plain(self) -> bool:
        """Whether all keys without a name are alike."""
        return not any(part.patterns or part.names is not part.names.book.any for part in self.parts)

    def member(self, key: str) -> Node:
        """The schema of a member."""
        if key not in self.known:
            found = [node for part in self.parts for node in part.member(key)]
            self.known[key] = found[0].book.both(found)
        return self.known[key]

    def fits(self, key: str) -> bool:
        """Whether all schemas of keys let a key pass."""
        return all(
            part.names is part.names.book.any
            or any(isinstance(shape, Texts) and _passes(shape, key) for shape in part.names.shapes)
            for part in self.parts
        )


Shape = Word | Numbers | Texts | Array | Object


def _passes(texts: Texts, key: str) -> bool:
    return key in texts.names if texts.names is not None else texts.fits(key)


def needed(shape: Shape) -> list[Node]:
    """The values that a value of this shape cannot do without."""
    if isinstance(shape, Array):
        return [shape.item(i) for i in range(min(shape.low, len(shape.first) + 1))]
    if isinstance(shape, Object):
        return [shape.member(key) for key in sorted(shape.required)]
    return []


def parts(shape: Shape, keys: bool = True) -> list[Node]:
    """Every node that a shape is made of; `keys`: also those that say what a key may be."""
    if isinstance(shape, Array):
        return [*shape.first, shape.rest]
    if isinstance(shape, Object):
        patterns = [node for part in shape.parts for _, node in part.patterns]
        named = [node for part in shape.parts for node in part.named.values()]
        names = [part.names for part in shape.parts] if keys else []
        return [*named, *patterns, *(part.rest for part in shape.parts), *names]
    return []


def everything(root: Node, keys: bool = True) -> list[Shape]:
    """The shapes of a value and of all values within it; `keys`: also those that its keys may have."""
    seen, todo, found = {root}, [root], list[Shape]()
    while todo:
        shapes = todo.pop().shapes
        found += shapes
        new = [child for child in dict.fromkeys(c for s in shapes for c in parts(s, keys)) if child not in seen]
        seen.update(new)
        todo += new
    return found


def merged(shapes: list[Shape]) -> list[Shape]:
    """The same without what is there twice; lists of strings and of numbers become one."""
    names = {n for s in shapes if isinstance(s, Texts) and s.names is not None for n in s.names}
    values = [v for s in shapes if isinstance(s, Numbers) and s.values is not None for v in s.values]
    out = [s for s in shapes if not (isinstance(s, (Texts, Numbers)) and _is_list(s))]
    out += [Texts(names=tuple(sorted(names)))] if names else []
    out += [Numbers(values=tuple(dict.fromkeys(values)))] if values else []
    return list(dict.fromkeys(out))


def _is_list(shape: Texts | Numbers) -> bool:
    return (shape.names if isinstance(shape, Texts) else shape.values) is not None


def meet(book: Nodes, one: list[Shape], other: list[Shape]) -> list[Shape]:
    """The shapes of what has a shape of both lists."""
    out: list[Shape] = []
    if len(one) * len(other) <= 7 * MOST:
        out = [shape for a in one for b in other if (shape := _meet(book, a, b)) is not None]
    if len(out) > MOST or len(one) * len(other) > 7 * MOST:
        raise MotesError(f"the JSON schema combines alternatives into more than {MOST} shapes of one value")
    return list(dict.fromkeys(out))


def _meet(book: Nodes, a: Shape, b: Shape) -> Shape | None:
    if isinstance(a, Word) and isinstance(b, Word):
        return a if a == b else None
    if isinstance(a, Numbers) and isinstance(b, Numbers):
        return a.both(b)
    if isinstance(a, Texts) and isinstance(b, Texts):
        return a.both(b)
    if isinstance(a, Array) and isinstance(b, Array):
        low, high = max(a.low, b.low), min(a.high, b.high)
        first = tuple(book.both([a.item(i), b.item(i)]) for i in range(max(len(a.first), len(b.first))))
        return Array(first, book.both([a.rest, b.rest]), low, high) if low <= high else None
    if isinstance(a, Object) and isinstance(b, Object):
        required = a.required | b.required
        low, high = max(a.low, b.low, len(required)), min(a.high, b.high)
        return Object((*a.parts, *b.parts), required, low, high) if low <= high else None
    return None


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    return type(a) is type(b) and a == b
