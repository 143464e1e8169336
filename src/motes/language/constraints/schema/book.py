"""A JSON schema as its author wrote it, and the shapes that its keywords leave."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from motes.errors import EmptyConstraint, MotesError
from motes.language.constraint import shorten
from motes.language.constraints.schema.expression import compiled
from motes.language.constraints.schema.formats import FORMATS
from motes.language.constraints.schema.numbers import Numbers, exact
from motes.language.constraints.schema.pattern import Pattern
from motes.language.constraints.schema.shapes import (
    Array,
    Node,
    Object,
    Part,
    Schema,
    Shape,
    Word,
    everything,
    meet,
    merged,
    needed,
    same,
)
from motes.language.constraints.schema.strings import Texts

KINDS = ("null", "boolean", "integer", "number", "string", "array", "object")
WORDS = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems"),
    "object": (
        "properties",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "required",
        "minProperties",
        "maxProperties",
    ),
    "": ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"),
}
HUGE = sys.float_info.max
"""Numbers beyond it are not followed; whole ones may come from a document, though no float is that large."""
NOTES = (
    *("title", "description", "default", "examples", "example", "$comment", "$id", "id", "$schema", "$defs"),
    *("definitions", "deprecated", "readOnly", "writeOnly", "$anchor", "$vocabulary", "contentMediaType"),
    *("contentEncoding", "contentSchema"),
)
"""Keywords that say nothing about a value."""
KNOWN = frozenset(NOTES).union(*WORDS.values())


class Book:
    """All schemas of a document, and the nodes made of them."""

    def __init__(self, document: Any):
        self.document = document
        self.known: dict[int, Schema] = {}
        self.kept: list[Any] = []
        self.nodes: dict[frozenset[int], Node] = {}
        self.sizes: dict[Node, float] = {}
        self.any: Node = self.node(True, "#")
        self.root: Node = self.any if document is True else self.node(document, "#")

    def schema(self, written: Any, place: str) -> Schema:
        """The schema that stands at a place; True and {} are the same everywhere."""
        if written is True or written == {}:
            written = True
        key = id(written)
        if key not in self.known:
            if not isinstance(written, (dict, bool)):
                raise self.fail(f"a schema is an object, true or false, not {shown(written)}", place)
            self.known[key] = Schema(written, place)
            self.kept.append(written)  # so that no other takes its identity
        return self.known[key]

    def node(self, written: Any, place: str) -> Node:
        return self._node([self.schema(written, place)])

    def both(self, nodes: list[Node]) -> Node:
        """What satisfies all of some nodes."""
        return nodes[0] if len(nodes) == 1 else self._node([s for node in nodes for s in node.schemas])

    def _node(self, schemas: list[Schema]) -> Node:
        different = {id(s.written): s for s in schemas}
        if len(different) > 1:
            different.pop(id(True), None)
        key = frozenset(different)
        if key not in self.nodes:
            self.nodes[key] = Node(self, tuple(different.values()))
        return self.nodes[key]

    def fail(self, why: str, place: str) -> MotesError:
        return MotesError(f"the JSON schema cannot be followed at {shorten(place, 80)}: {why}")

    # ------------------------------------------------------------ from keywords to shapes

    def shapes(self, schema: Schema, path: tuple[Schema, ...]) -> list[Shape]:
        """The shapes of one schema; `path` are those that refer to it for the same value."""
        written, place = schema.written, schema.place
        if schema in path:
            raise self.fail("it refers to itself for the same value", place)
        if len(path) > 200:
            raise self.fail("more than 200 schemas refer to each other for one value", place)
        if written is False:
            return []
        if written is True:
            return [Word(b"null"), Word(b"true"), Word(b"false"), Numbers(), Texts(), *self._open()]
        path = (*path, schema)
        out = list(self._own(written, place))
        for word in ("anyOf", "oneOf"):
            if word in written:
                found = self._alternatives(written, word, place, path)
                if word == "oneOf":
                    self._apart(found, place)
                out = meet(self, out, merged([shape for shapes in found for shape in shapes]))
        for i, part in enumerate(self._list(written, "allOf", place) if "allOf" in written else ()):
            out = meet(self, out, self.shapes(self.schema(part, f"{place}/allOf/{i}"), path))
        if "$ref" in written:
            out = meet(self, out, self.shapes(self.target(written["$ref"], place), path))
        return out

    def _open(self) -> Iterator[Shape]:
        yield Array((), self.any, 0, math.inf)
        yield Object((Part({}, (), self.any, self.any),), frozenset(), 0, math.inf)

    def _alternatives(
        self, written: dict[str, Any], word: str, place: str, path: tuple[Schema, ...]
    ) -> list[list[Shape]]:
        """The shapes of each alternative; those that are nothing but a constant string are one, unless there are two
        of the same."""
        found, names = [], []
        for i, option in enumerate(self._list(written, word, place)):
            if isinstance(option, dict) and option.keys() == {"const"} and isinstance(option["const"], str):
                names.append(option["const"])
            else:
                found.append(self.shapes(self.schema(option, f"{place}/{word}/{i}"), path))
        if len(names) > len(set(names)):
            twice = sorted(n for n, count in Counter(names).items() if count > 1)
            found.append([Texts(names=tuple(twice))])
        return [*found, list(self._listed(names, [], {}, place))] if names else found

    def _apart(self, found: list[list[Shape]], place: str) -> None:
        """No value satisfies two of the alternatives of a oneOf."""
        if sum(map(len, found)) > 300:
            raise self.fail("a oneOf of more than 300 shapes; use anyOf", place)
        for i, one in enumerate(found):
            for other in found[:i]:
                if any(self.inhabited(shape) for shape in meet(self, one, other)):
                    why = "a value can satisfy two alternatives of oneOf; make them exclude each other, or use anyOf"
                    raise self.fail(why, place)

    def _list(self, written: dict[str, Any], word: str, place: str) -> list[Any]:
        value = written[word]
        if not isinstance(value, list) or (not value and word != "required"):
            raise self.fail(f"{word} is a list of at least one entry, not {shown(value)}", place)
        return value

    def target(self, reference: Any, place: str) -> Schema:
        """The schema that a reference within the document names."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise self.fail(f"$ref has to be a place in this document, as '#/$defs/name', not {reference!r}", place)
        at = self.document
        for step in reference.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(at, list) and step.isdigit() and int(step) < len(at):
                at = at[int(step)]
            elif isinstance(at, dict) and step in at:
                at = at[step]
            else:
                raise self.fail(f"there is nothing at {reference!r}", place)
        return self.schema(at, reference)

    def _own(self, written: dict[str, Any], place: str) -> Iterator[Shape]:
        """The shapes by the keywords that stand in a schema itself."""
        for word in written:
            if word not in KNOWN and not word.startswith("x-"):
                why = f"the keyword {shown(word)} is not known (layout='spaced' may know it)"
                raise self.fail(why, place)
        kinds = written.get("type", list(KINDS))
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or not all(isinstance(k, str) and k in KINDS for k in kinds):
            raise self.fail(f"type {shown(kinds)} is none of {', '.join(KINDS)}", place)
        if "const" in written or "enum" in written:
            values = [written["const"]] if "const" in written else self._list(written, "enum", place)
            if "const" in written and "enum" in written:
                values = [v for v in self._list(written, "enum", place) if same(v, written["const"])]
            yield from self._listed(values, kinds, written, place)
            return
        if "null" in kinds:
            yield Word(b"null")
        if "boolean" in kinds:
            yield from (Word(b"true"), Word(b"false"))
        if "integer" in kinds or "number" in kinds:
            numbers = self._numbers(written, place)
            found = (numbers if "number" in kinds else numbers.both(Numbers(whole=True))) if numbers else None
            yield from () if found is None else (found,)
        if "string" in kinds and (texts := self._texts(written, place)) is not None:
            yield texts
        if "array" in kinds:
            yield from self._array(written, place)
        if "object" in kinds:
            yield from self._object(written, place)

    def _listed(self, values: list[Any], kinds: list[str], written: dict[str, Any], place: str) -> Iterator[Shape]:
        """The shapes of listed values, as far as the other keywords beside them let them pass."""
        others = {k: v for k, v in written.items() if k not in ("enum", "const", "anyOf", "oneOf", "allOf", "$ref")}
        rest = list(self._own(others, place)) if others.keys() - set(NOTES) else None
        found: list[Shape] = []
        names, numbers = set(), []
        for at, value in enumerate(values):
            if isinstance(value, str):
                if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
                    raise self.fail(f"the string {shown(value)} holds half a character", place)
                names.add(value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                numbers.append(self._number(value, place))
            elif value is None or isinstance(value, bool):
                found.append(Word(json.dumps(value).encode()))
            else:
                found.append(self._constant(value, f"{place}/enum/{at}"))
        if names:
            found.append(Texts(names=tuple(sorted(names))))
        if numbers:
            found.append(Numbers(values=tuple(dict.fromkeys(numbers))))
        yield from found if rest is None else meet(self, found, rest)

    def _constant(self, value: Any, place: str) -> Shape:
        """An array or an object that is exactly this one."""

        def constant(part: Any, at: Any) -> Node:
            return self.node({"const": part}, f"{place}/{at}")

        if isinstance(value, list):
            first = tuple(constant(part, i) for i, part in enumerate(value))
            return Array(first, self.node(False, place), len(first), len(first))
        named = {key: constant(part, key) for key, part in value.items()}
        return Object(
            (Part(named, (), self.node(False, place), self.any),), frozenset(named), len(named), float(len(named))
        )

    def _number(self, value: Any, place: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= HUGE:
            raise self.fail(f"{value!r} is no number", place)
        return exact(value)

    def _numbers(self, written: dict[str, Any], place: str) -> Numbers | None:
        bound = {
            word: self._number(written[word], place)
            for word in WORDS["number"]
            if word in written and not (isinstance(written[word], bool) and word.startswith("exclusive"))
        }
        steps = (bound["multipleOf"],) if "multipleOf" in bound else ()
        if steps and steps[0] <= 0:
            raise self.fail(f"multipleOf has to be above zero, not {written['multipleOf']!r}", place)
        out: Numbers | None = Numbers(steps=steps)
        if "minimum" in bound:  # draft 4 says with a boolean whether the bound itself is left out
            out = out and out.both(Numbers(low=bound["minimum"], open_low=written.get("exclusiveMinimum") is True))
        if "maximum" in bound:
            out = out and out.both(Numbers(high=bound["maximum"], open_high=written.get("exclusiveMaximum") is True))
        if "exclusiveMinimum" in bound:
            out = out and out.both(Numbers(low=bound["exclusiveMinimum"], open_low=True))
        if "exclusiveMaximum" in bound:
            out = out and out.both(Numbers(high=bound["exclusiveMaximum"], open_high=True))
        return out

    def _count(self, written: dict[str, Any], word: str, place: str) -> int | None:
        value = written.get(word)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise self.fail(f"{word} is a whole number of at least 0, not {shown(value)}", place)
        return value

    def _texts(self, written: dict[str, Any], place: str) -> Texts | None:
        patterns = []
        if "pattern" in written:
            patterns.append(self._pattern(written["pattern"], place))
        if "format" in written:
            if not isinstance(written["format"], str) or written["format"] not in FORMATS:
                why = f"the format {shown(written['format'])} is none of {', '.join(FORMATS)}"
                raise self.fail(why, place)
            patterns.append(compiled(FORMATS[written["format"]]))
        low, high = self._count(written, "minLength", place), self._count(written, "maxLength", place)
        return Texts(low or 0, high, tuple(patterns)).thinned()

    def _pattern(self, source: Any, place: str) -> Pattern:
        if not isinstance(source, str):
            raise self.fail(f"a pattern is a string, not {shown(source)}", place)
        return compiled(source)

    def _array(self, written: dict[str, Any], place: str) -> Iterator[Array]:
        items, first = written.get("items", True), written.get("prefixItems", [])
        word = "prefixItems"
        if isinstance(items, list):  # drafts before 2020-12
            first, items, word = items, written.get("additionalItems", True), "items"
        if not isinstance(first, list):
            raise self.fail(f"prefixItems is a list, not {shown(first)}", place)
        nodes = tuple(self.node(s, f"{place}/{word}/{i}") for i, s in enumerate(first))
        high = self._count(written, "maxItems", place)
        low = self._count(written, "minItems", place) or 0
        if high is None or low <= high:
            yield Array(nodes, self.node(items, f"{place}/items"), low, math.inf if high is None else high)

    def _object(self, written: dict[str, Any], place: str) -> Iterator[Object]:
        named, patterns = written.get("properties", {}), written.get("patternProperties", {})
        for word, value in (("properties", named), ("patternProperties", patterns)):
            if not isinstance(value, dict):
                raise self.fail(f"{word} is an object, not {shown(value)}", place)
        required = self._list(written, "required", place) if "required" in written else []
        if not all(isinstance(key, str) for key in required):
            raise self.fail("required is a list of strings", place)
        if any(0xD800 <= ord(c) <= 0xDFFF for key in (*named, *required) for c in key):
            raise self.fail("a key holds half a character", place)
        part = Part(
            {key: self.node(s, f"{place}/properties/{key}") for key, s in named.items()},
            tuple((self._pattern(p, place), self.node(s, f"{place}/{p}")) for p, s in patterns.items()),
            self.node(written.get("additionalProperties", True), f"{place}/additionalProperties"),
            self.node(written.get("propertyNames", True), f"{place}/propertyNames"),
        )
        high = self._count(written, "maxProperties", place)
        low = self._count(written, "minProperties", place) or 0
        found = Object((part,), frozenset(required), max(low, len(set(required))), math.inf if high is None else high)
        if found.low <= found.high:
            yield found

    # ------------------------------------------------------------ what is empty

    def inhabited(self, shape: Shape) -> bool:
        return self._least(shape) < math.inf

    def size(self, node: Node) -> float:
        """The fewest bytes of a value that satisfies a node, or a number below it; inf: there is none."""
        if node not in self.sizes:
            self._measure(node)
        return self.sizes[node]

    def _measure(self, node: Node) -> None:
        """All nodes that `node` needs, from infinity downwards until nothing changes."""
        order, seen = [], {node}
        todo = [node]
        while todo:
            at = todo.pop()
            order.append(at)
            for child in (c for shape in at.shapes for c in needed(shape)):
                if child not in seen and child not in self.sizes:
                    seen.add(child)
                    todo.append(child)
            if len(order) > 20_000:
                raise self.fail("more than 20000 values have to stand in each other", node.schemas[0].place)
        for at in order:
            self.sizes[at] = math.inf
        changed = True
        while changed:
            changed = False
            for at in reversed(order):
                least = min(map(self._least, at.shapes), default=math.inf)
                if least < self.sizes[at]:
                    self.sizes[at], changed = least, True

    def _least(self, shape: Shape) -> float:
        if isinstance(shape, Word):
            return len(shape.bytes)
        if isinstance(shape, Numbers):
            return 1
        if isinstance(shape, Texts):
            return 2 + shape.left(shape.start())
        children = needed(shape)
        return 2 + sum(self.size(child) for child in children) + max(len(children) - 1, 0)


def shown(value: object, most: int = 60) -> str:
    """A part of a schema as it is written in Python, cut where it is long."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}..."


def opened(document: Any) -> Book:
    """The schemas of a document, with at least one value that satisfies it.

    Raises:
        EmptyConstraint: no value satisfies it.
        MotesError: it is no schema, or uses what cannot be followed.
    """
    book = Book(document)
    everything(book.root)  # what cannot be followed is found now
    if not book.root.possible:
        raise EmptyConstraint(f"nothing can satisfy the JSON schema {shorten(json.dumps(document))}")
    return book
