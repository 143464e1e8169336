"""Texts near a JSON schema, right and wrong, in every spelling, and what a validator says of them."""

from __future__ import annotations

import decimal
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from motes.language import json_schema
from motes.language.constraints.schema.automaton import Automaton
from motes.language.constraints.schema.recogniser import JsonSchema


def whole(a, b):
    return {"type": "integer", "minimum": a, "maximum": b}


def obj(**p):
    return {"type": "object", "properties": p, "required": list(p), "additionalProperties": False}


SCHEMAS: list[Any] = [
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "number", "minimum": 0.5, "exclusiveMaximum": 2},
    {"enum": ["a", "ab", "b/c", 1, 2.5, None, True, [1, {"x": []}], {"k": "v", "l": 1}]},
    {"type": "integer"},
    {"type": "number", "multipleOf": 0.5, "minimum": -1, "maximum": 1},
    {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 50},
    {"type": "number"},
    {"type": "string", "minLength": 1, "maxLength": 2},
    {"type": "string", "pattern": "^a*b$"},
    {"type": "string", "pattern": "b"},
    {"type": "string", "pattern": "^(a|bb){1,2}$", "maxLength": 3},
    obj(a=whole(0, 12), b={"type": "boolean"}),
    {"type": "object", "properties": {"a": whole(0, 2), "b": {"type": "null"}}, "required": ["b"]},
    {"type": "object", "minProperties": 2, "maxProperties": 3},
    {
        "type": "object",
        "properties": {"a": {}, "b": {}},
        "minProperties": 1,
        "maxProperties": 2,
        "additionalProperties": False,
    },
    {"type": "object", "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False},
    {"type": "object", "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
    {"type": "object", "propertyNames": {"maxLength": 1}, "additionalProperties": {"type": "integer"}},
    {"type": "array", "items": whole(0, 9), "minItems": 1, "maxItems": 2},
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"const": 1}], "items": False},
    {"type": "array", "prefixItems": [{"type": "boolean"}], "items": {"type": "null"}, "minItems": 2},
    {"anyOf": [obj(a={"const": 1}), obj(a={"const": 2}, b={}), {"type": "null"}]},
    {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "string"}]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"minimum": 1}}},
            {"properties": {"a": {"maximum": 2}}, "required": ["a"]},
        ]
    },
    {
        "$defs": {
            "t": {
                "type": "object",
                "properties": {"c": {"type": "array", "items": {"$ref": "#/$defs/t"}}},
                "required": ["c"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/t",
    },
    {"type": ["integer", "null"], "minimum": 5},
    {"const": {"a": [1, "x"], "b": {}}},
    True,
    {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "properties": {"ab": {"type": "null"}},
        "maxProperties": 2,
    },
    {"enum": [10, 100, -2.5]},
    {"type": "integer", "exclusiveMinimum": 9, "maximum": 100},
    {"type": "number", "minimum": -100, "maximum": -99.5},
]

NUMBERS = [
    0,
    1,
    2,
    3,
    5,
    7,
    9,
    10,
    12,
    14,
    21,
    49,
    50,
    99,
    100,
    -1,
    -2,
    -3,
    0.5,
    1.5,
    2.5,
    -0.5,
    -2.5,
    0.25,
    -99.5,
    -99.75,
]
STRINGS = ["", "a", "b", "ab", "aab", "bb", "abb", "b/c", "é", "😀", 'a"', "\\", "\n", "k", "v", "x"]
KEYS = ["a", "b", "c", "ab", "aa", "k", "l", "x"]


class Writer:
    """Values and texts from random numbers."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        """Any value."""
        pick, kind = self.random.choice, self.random.choice("nbisiooaa" if depth < 2 else "nbisi")
        if kind == "n":
            return None
        if kind == "b":
            return pick([True, False])
        if kind == "i":
            return pick(NUMBERS)
        if kind == "s":
            return pick(STRINGS)
        if kind == "o":
            return {pick(KEYS): self.value(depth + 1) for _ in range(pick([0, 1, 2, 2, 3]))}
        return [self.value(depth + 1) for _ in range(pick([0, 1, 2, 3]))]

    def near(self, schema: Any, depth: int = 0) -> Any:
        """A value that satisfies a schema, or almost."""
        pick = self.random.choice
        if not isinstance(schema, dict) or depth > 4:
            return self.value(2)
        if "$ref" in schema:
            return {"c": [self.near(schema, depth + 1) for _ in range(pick([0, 0, 1, 2]) if depth < 3 else 0)]}
        for word in ("const", "enum"):
            if word in schema:
                return schema[word] if word == "const" else pick(schema[word])
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self.near(pick(schema[word]))
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            named = schema.get("properties", {}).items()
            out = {key: self.near(part, depth + 1) for key, part in named if self.random.random() < 0.9}
            return out | {pick(KEYS[:6]): self.value(2) for _ in range(pick([0, 0, 1, 2]))}
        if kind == "array":
            return [self.near(schema.get("items"), depth + 1) for _ in range(pick([0, 1, 2, 3]))]
        if kind in ("integer", "number"):
            return pick(NUMBERS)
        return "".join(pick("abéx") for _ in range(pick([0, 1, 2, 3]))) if kind == "string" else self.value()

    def space(self) -> str:
        return self.random.choice(["", "", "", " ", "\n", "\t \r"])

    def number(self, x: float) -> str:
        """A number, at times with zeros behind its point or with an exponent."""
        pick, chance = self.random.choice, self.random.random()
        if chance < 0.5:
            return repr(x)
        if chance < 0.7:
            return repr(x) + ("" if "." in repr(x) else ".") + "0" * pick([1, 2, 3])
        power = pick([-3, -2, -1, 0, 1, 2, 3])
        sign = "+" if power >= 0 and pick([True, False]) else ""
        zero = "0" if power >= 0 and pick([True, False]) else ""
        return format(decimal.Decimal(repr(x)).scaleb(-power), "f") + pick("eE") + sign + zero + str(power)

    def string(self, text: str) -> str:
        """A string, with escapes where they have to be and at times where they may."""
        out = ""
        for c in text:
            halves = c.encode("utf-16-be")
            if self.random.random() < 0.2:
                pairs = (int.from_bytes(halves[i : i + 2], "big") for i in range(0, len(halves), 2))
                out += "".join(self.random.choice(["\\u%04x", "\\u%04X"]) % code for code in pairs)
            elif c == "/" and self.random.random() < 0.5:
                out += "\\/"
            else:
                out += json.dumps(c, ensure_ascii=False)[1:-1]
        return f'"{out}"'

    def write(self, value: Any) -> str:
        """A value as JSON, in any order and layout; at times with a key twice."""
        if value is None or isinstance(value, bool):
            return json.dumps(value)
        if isinstance(value, (int, float)):
            return self.number(value)
        if isinstance(value, str):
            return self.string(value)
        comma = f"{self.space()},{self.space()}"
        if isinstance(value, list):
            return f"[{self.space()}{comma.join(map(self.write, value))}{self.space()}]"
        items = list(value.items())
        self.random.shuffle(items)
        if items and self.random.random() < 0.1:
            items.append(self.random.choice(items))
        members = (f"{self.string(k)}{self.space()}:{self.space()}{self.write(v)}" for k, v in items)
        return f"{{{self.space()}{comma.join(members)}{self.space()}}}"

    def bent(self, text: str) -> str:
        """A text with none to two characters changed."""
        for _ in range(self.random.choice([0, 0, 0, 1, 1, 2])):
            at, chance = self.random.randrange(len(text) + 1), self.random.random()
            if chance < 0.4:
                text = text[:at] + text[at + 1 :]
            elif chance < 0.8 or not text:
                text = text[:at] + self.random.choice('{}[],:"0123456789-+.eE\\ntfalsu /\n é\x01') + text[at:]
            else:
                other = self.random.randrange(len(text))
                text = text[:at] + text[other : other + 2] + text[at:]
        return text


def texts(schema: Any, seed: int, n: int) -> Iterator[str]:
    """Texts near a schema."""
    writer = Writer(seed)
    for _ in range(n):
        value = writer.near(schema) if writer.random.random() < 0.8 else writer.value()
        text = writer.bent(f"{writer.space()}{writer.write(value)}{writer.space()}")
        if not re.search(r"[eE][+-]?\d{3}", text):  # the validator's numbers end at 1e308
            yield text


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def no_constant(name: str) -> None:
    raise ValueError(name)


def judge(schema: Any, text: str) -> bool:
    """Whether a text is JSON, with each key once and whole characters, and satisfies the schema."""
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def automaton(schema: Any) -> Automaton:
    """What recognises a schema, byte by byte."""
    made = json_schema(schema)
    assert isinstance(made, JsonSchema)
    return made.automaton
