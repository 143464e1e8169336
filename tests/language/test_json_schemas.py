"""Twenty JSON schemas of growing difficulty: what SmolLM2 writes under them is judged by the jsonschema package."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import pytest

import motes
from motes.language import Generation, json_schema


def obj(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def whole(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def text(most: int = 10, least: int = 1) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most}


def like(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def array(items: Any, low: int, high: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


COLOUR = {"enum": ["red", "green", "blue"]}
FLAG = {"type": "boolean"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "boolean": FLAG,
    "enum": COLOUR,
    "integer": whole(3, 17),
    "string": text(8, 2),
    "constant": {"const": {"kind": "none", "at": [1, 2]}},
    "date": like("^20[0-2][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$"),
    "number": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2},
    "negative": obj(celsius=whole(-30, -1), sure=FLAG),
    "integers": array(whole(0, 99), 2, 4),
    "colours": array(COLOUR, 1, 3),
    "person": obj(name=text(12), age=whole(0, 120)),
    "optional": {**obj(id=whole(1, 999), note=text(6)), "required": ["id"]},
    "either": {"anyOf": [obj(yes={"const": True}), obj(no={"const": False}, why=text(12)), {"type": "null"}]},
    "nullable": obj(middle={"type": ["string", "null"], "maxLength": 5}, score={"type": ["integer", "null"]}),
    "plate": obj(plate=like("^[A-Z]{2}-[0-9]{3}$"), colour=COLOUR, year=whole(1950, 2029)),
    "nested": obj(place=obj(city=text(10, 2), at=obj(lat=whole(-90, 90), lon=whole(-180, 180))), open=FLAG),
    "rows": array(obj(item=text(8), price={"type": "number", "minimum": 0, "maximum": 100}), 1, 3),
    "tuple": {
        "type": "array",
        "prefixItems": [COLOUR, whole(1, 6), FLAG],
        "items": False,
        "minItems": 3,
    },
    "shared": {
        "$defs": {"point": obj(x=whole(-9, 9), y=whole(-9, 9))},
        **obj(start={"$ref": "#/$defs/point"}, way=array({"$ref": "#/$defs/point"}, 1, 2)),
    },
    "order": obj(
        id=like("^ord_[0-9a-f]{4}$"),
        customer=obj(name=text(10), mail=like("^[a-z]{2,8}@[a-z]{2,8}\\.(com|org)$")),
        lines=array(obj(sku=like("^[A-Z]{3}[0-9]{2}$"), count=whole(1, 12), gift=FLAG), 1, 2),
        pay={"anyOf": [obj(card=like("^[0-9]{4}$")), obj(cash={"enum": ["EUR", "USD"]})]},
    ),
}
QUICK = ["plate"]


def sampled(model: Any, name: str, n: int, seed: int) -> Any:
    prompt = f"Write an example of JSON that satisfies this schema, and nothing else: {json.dumps(SCHEMAS[name])}"
    most = 24 if name == "number" else 160  # a number may have any number of digits, and is one wherever it is cut
    task = Generation(model, prompt, constraint=json_schema(SCHEMAS[name]), max_tokens=most)
    return motes.sample(task, n, seed=seed, progress=False)


def assert_valid(run: Any, name: str, n: int) -> None:
    judge = jsonschema.Draft202012Validator(SCHEMAS[name])
    alive = [t for t, w in zip(run.texts, run.particles.log_weight.tolist(), strict=True) if w > -math.inf]
    # a number that has gone past its bound can be saved by an exponent alone, and seldom is
    assert len(alive) == n or (name == "number" and alive), "a text was cut before its end"
    for written in alive:
        judge.validate(json.loads(written))
    assert math.isfinite(run.log_evidence)


def test_there_are_twenty_and_the_judge_knows_them():
    """What is wrong by a little is refused."""
    assert len(SCHEMAS) == 20
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for name, written in {"order": '{"id": "ord_12"}', "number": "2.0", "integers": "[1, 100]", "plate": "{}"}.items():
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(SCHEMAS[name]).validate(json.loads(written))


@pytest.mark.parametrize("name", QUICK)
def test_what_is_written_validates(smollm2, name):
    assert_valid(sampled(smollm2, name, 2, seed=1), name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_thousand_texts_validate(smollm2, name):
    assert_valid(sampled(smollm2, name, 50, seed=2), name, 50)


DICE = obj(dice=whole(1, 6))
TALK = [
    {"role": "user", "content": "Throw the dice, as JSON."},
    {"role": "assistant", "content": '{"dice": 4}'},
    {"role": "user", "content": "Again."},
]


def is_valid(text: str) -> bool:
    """JSON that satisfies the schema."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(DICE).is_valid(found)


@pytest.mark.parametrize("n", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_the_probability_of_validity_is_that_of_rejection(smollm2, n):
    """The share of valid ones among free texts; 4.9 standard errors: 0.35 of 60 texts, 0.05 of 3000."""
    free = motes.sample(Generation(smollm2, TALK, max_tokens=9), n, seed=3, progress=False)
    share = sum(map(is_valid, free.texts)) / n
    task = Generation(smollm2, TALK, constraint=json_schema(DICE), max_tokens=9)
    z = [math.exp(motes.sample(task, 15, seed=s, progress=False).log_evidence) for s in range(4)]
    mean = sum(z) / 4
    se = math.sqrt(sum((x - mean) ** 2 for x in z) / 12 + share * (1 - share) / n)
    assert 0.1 < share < 0.99
    assert abs(mean - share) < 4.9 * se
    assert 4.9 * se < (0.35 if n == 60 else 0.06)
