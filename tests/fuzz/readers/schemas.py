"""JSON schemas in any layout: read, and a few bytes of a text judged by them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fuzz.harness import Reader
from fuzz.mutate import spoil_json, spoil_text
from motes.language import json_schema

WHOLE: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]},
    {"type": "array", "items": {"enum": ["x", 1, None, [1]]}, "minItems": 1, "maxItems": 3, "prefixItems": [{}]},
    {"type": "string", "pattern": "^(a|b){1,3}[^c-e]?\\d+$", "minLength": 1, "maxLength": 8, "format": "date"},
    {"anyOf": [{"const": {"k": [1, 2]}}, {"oneOf": [{"type": "null"}, {"type": "boolean"}]}], "allOf": [{}]},
    {"$defs": {"t": {"type": "object", "properties": {"n": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"},
    {"type": ["number", "null"], "multipleOf": 0.25, "exclusiveMaximum": 7.5, "minimum": -1e3},
    {"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False, "maxProperties": 2},
    {"propertyNames": {"maxLength": 3}, "minProperties": 1, "additionalProperties": {"type": "integer"}},
]
TEXTS = ['{"a": 1, "b": [true]}', '["x", 1.0, null]', '"ab7"', "-1.25e-1", '{"k": [1, 2]}', '{"n": {"n": {}}}', "null"]


def nested(rng: random.Random) -> Any:
    """A schema of some depth, of one kind or several."""
    out: Any = True
    for _ in range(rng.choice([10, 300, 900])):
        kind = rng.randrange(5)
        if kind == 0:
            out = {"items": out}
        elif kind == 1:
            out = {"properties": {"a": out}, "required": ["a"]}
        else:
            out = {("anyOf", "allOf", "oneOf")[kind - 2]: [out]}
    return out


def make(rng: random.Random) -> tuple[Any, str]:
    kind, text = rng.randrange(6), rng.choice(TEXTS)
    if kind == 0:
        return spoil_text(rng, json.dumps(rng.choice(WHOLE))), spoil_text(rng, text)
    if kind == 1:
        return nested(rng), text
    if kind == 2:
        names = [f"{rng.random()}" for _ in range(rng.choice([3, 2000, 100_000]))]
        return rng.choice([{"enum": names}, {"anyOf": [{"const": n} for n in names]}]), f'"{names[0]}"'
    return spoil_json(rng, rng.choice(WHOLE)), spoil_text(rng, text)


def read(given: tuple[Any, str], folder: Path) -> None:
    schema, text = given
    automaton = json_schema(schema).automaton
    cells = automaton.start
    for byte in text.encode("utf-8", "surrogatepass"):
        cells = automaton.step(cells, byte)
    automaton.accepts(cells)


READER = Reader("schemas", make, read, slice=150)
