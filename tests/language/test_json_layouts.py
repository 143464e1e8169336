"""JSON under a schema in any layout: what is accepted is what a validator accepts, and its probability is that."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import torch

import motes
from language.json_texts import SCHEMAS, automaton, judge, texts
from motes.errors import EmptyConstraint, MotesError
from motes.language import Generation, TableModel, json_schema
from motes.language.constraints.schema.pattern import Pattern
from motes.language.constraints.schema.smallest import smallest


def accepted(schema: Any, text: str) -> bool:
    """What the recogniser says, byte by byte; what it forgets on the way never loses a text."""
    machine = automaton(schema)
    cells = coarse = machine.start
    for byte in text.encode():
        cells, coarse = machine.step(cells, byte), machine.step(machine.coarse(coarse), byte, coarse=True)
        if not cells:
            return False
        assert coarse
    return machine.accepts(cells)


@pytest.mark.parametrize("n", [15, pytest.param(1500, marks=pytest.mark.slow)])
def test_texts_are_accepted_where_the_validator_accepts_them(n):
    """Right and wrong texts near 32 schemas, in every spelling: other space, order, escapes, exponents, doubles."""
    right = wrong = 0
    for at, schema in enumerate(SCHEMAS):
        for text in texts(schema, seed=at, n=n):
            want = judge(schema, text)
            assert accepted(schema, text) == want, (schema, text)
            right, wrong = right + want, wrong + (not want)
    assert right > 3 * n and wrong > 3 * n


def test_one_layout_is_not_all_of_them():
    """The broken twin: what `json.dumps` writes is accepted in one layout, and other spellings of it are not."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a", "b"]}
    for text, spaced in (('{"a": 1, "b": 2}', True), ('{"b":2,"a":1.0}', False), ('{"\\u0061": 1, "b": 2}', False)):
        assert judge(schema, text) and accepted(schema, text)
        model = TableModel([*dict.fromkeys(text), "."], torch.zeros(len(set(text)) + 2, len(set(text)) + 1))
        recogniser = json_schema(schema, layout="spaced").open(model)
        row, alive = [model.tokens.index(c) for c in text], True
        for v in row[:-1]:
            alive = alive and bool(recogniser.allowed()[0, v])
            if alive:
                recogniser.extend(torch.tensor([0]), torch.tensor([v]))
        assert (alive and bool(recogniser.accepts(torch.tensor([0]), torch.tensor(row[-1:]))[0])) == spaced


@pytest.mark.parametrize("extra", [{}, {"minProperties": 2}, {"maxProperties": 1}])
def test_a_key_stands_once(extra):
    schema = {"type": "object", "additionalProperties": {"type": "integer"}, **extra}
    assert not accepted(schema, '{"a": 1, "a": 2}') and not accepted(schema, '{"a": 1, "\\u0061": 2}')
    assert accepted(schema, '{"a": 1, "b": 2}') == ("maxProperties" not in extra)


FREE = [
    {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
    {"type": "object", "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False},
    True,
]


@pytest.mark.parametrize("schema", FREE)
def test_a_key_stands_once_in_one_layout_too(schema):
    """The broken twin: the recogniser of layouts alone, for which a key that no schema names may stand twice."""

    def accepts(constraint: Any, text: str) -> bool:
        model = TableModel([*dict.fromkeys(text), "."], torch.zeros(len({*text}) + 2, len({*text}) + 1))
        recogniser, alive = constraint.open(model), True
        for c in text:
            v = model.tokens.index(c)
            alive = alive and bool(recogniser.allowed()[0, v])
            if alive:
                recogniser.extend(torch.tensor([0]), torch.tensor([v]))
        return alive and bool(recogniser.allowed()[0, -1])

    made: Any = json_schema(schema, layout="compact")
    assert accepts(made, '{"a":1,"ab":2}') and not accepts(made, '{"a":1,"a":2}')
    assert not accepts(made, '{"a":1, "ab":2}')  # the layout holds
    assert accepts(made.one, '{"a":1,"a":2}')
    assert made.quantity == "log P(valid, compact layout)" and made.settings()["layout"] == "compact"
    named = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    assert not hasattr(json_schema(named, layout="compact"), "one")


TOKENS = ['{"', "a", '":', " ", "1", ".0", "e0", "}", ',"', "b", "\\u0061", "true", "."]


def enumerated(schema: Any, law: torch.Tensor, most: int) -> float:
    """The probability of a valid text, over all of at most `most` tokens that do not die at once."""
    end = len(TOKENS) - 1
    alive = automaton(schema)

    def grow(text: str, p: float, length: int, cells: Any) -> Iterator[float]:
        valid = judge(schema, text)
        if valid:
            yield p * float(law[end]) if length < most else p
        for v in range(end) if length < most else ():
            after = cells
            for byte in TOKENS[v].encode():
                after = alive.step(after, byte)
            if after:
                yield from grow(text + TOKENS[v], p * float(law[v]), length + 1, after)

    return sum(grow("", 1.0, 0, alive.start))


@pytest.mark.parametrize("n", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_the_probability_of_validity_is_that_of_all_layouts(n):
    """16 runs against enumeration by the validator; 4.9 standard errors, which see a tenth with n = 600."""
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 1}, "b": {"const": True}}}
    schema |= {"required": ["a"], "additionalProperties": False}
    law = torch.tensor([0.15, 0.12, 0.15, 0.04, 0.12, 0.03, 0.02, 0.15, 0.05, 0.04, 0.03, 0.05, 0.05]).double()
    truth = enumerated(schema, law, 7)
    model = TableModel(TOKENS, law.log().expand(len(TOKENS) + 1, -1))
    task = Generation(model, "", constraint=json_schema(schema), max_tokens=7)
    runs = [motes.sample(task, n, seed=s, progress=False) for s in range(16)]
    z = torch.tensor([math.exp(run.log_evidence) for run in runs]) / truth
    se = float(z.std()) / 4
    assert abs(float(z.mean()) - 1) < 4.9 * se and se < (0.2 if n == 60 else 0.03)
    assert all(judge(schema, t) for run in runs for t, w in zip(run.texts, run.weight.tolist(), strict=True) if w > 0)
    assert runs[0].setup["quantity"] == "log P(valid)"
    assert any(len({*run.texts}) > 3 for run in runs)
    spaced = Generation(model, "", constraint=json_schema(schema, layout="compact"), max_tokens=7)
    assert spaced.quantity == "log P(valid, compact layout)"


def test_no_text_is_begun_that_cannot_end_in_time():
    """The bound is below the fewest tokens of every text, and within a token or two of it at the end."""
    schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": True}}, "required": ["a", "b"]}
    schema |= {"additionalProperties": False}
    text = ['{"', "a", '":', "1", ',"', "b", '":', "true", "}"]
    model = TableModel(TOKENS, torch.zeros(len(TOKENS) + 1, len(TOKENS)))
    recogniser: Any = json_schema(schema).open(model, 9)
    recogniser.within(9)
    for at, piece in enumerate(text):
        v = TOKENS.index(piece)
        assert bool(recogniser.allowed()[0, v]), text[:at]
        assert recogniser.walk.fewest(recogniser.rows[0].cells) <= len(text) - at
        recogniser.extend(torch.tensor([0]), torch.tensor([v]))
    assert recogniser.allowed()[0].nonzero()[:, 0].tolist() == []  # at max_tokens a text is cut, and is valid as it is
    with pytest.raises(EmptyConstraint, match="at least"):
        json_schema(schema).open(model, 5)


def test_a_step_ends_with_a_member():
    schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": True}}, "required": ["a", "b"]}
    schema |= {"additionalProperties": False}
    model = TableModel(TOKENS, torch.zeros(len(TOKENS) + 1, len(TOKENS)))
    task = Generation(model, "", constraint=json_schema(schema), max_tokens=20)
    seen: list[set[int]] = []
    motes.sample(
        task,
        20,
        seed=0,
        progress=False,
        callback=lambda s: seen.append({t.count(",") + t.count("}") for t in task.view(s.particles)}),
    )
    assert 1 in seen[1] <= {0, 1} and len(seen) < 8  # 0: a text that paid too much is not waited for
    by_token = Generation(model, "", constraint=json_schema(schema), max_tokens=20, step="token")
    assert motes.sample(by_token, 20, seed=0, progress=False).particles.t > 8


def test_what_cannot_be_followed_is_refused_and_what_is_empty_is_said():
    for schema, word in (
        ({"uniqueItems": True}, "uniqueItems"),
        ({"not": {}}, "not"),
        ({"type": "integer", "minimum": 10**400}, "10000"),
        ({"items": {"enum": [[10**400]]}}, "10000"),
        ({"properties": {"a": {"items": {"if": {}}}}}, "if"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"enum": ["\ud800"]}, "half a character"),
        ({"format": "postcode"}, "format"),
        ({"$ref": "#"}, "itself"),
    ):
        with pytest.raises(MotesError, match=word):
            json_schema(schema)
    for schema in (False, {"type": "integer", "minimum": 3, "maximum": 2}, {"allOf": [{"const": 1}, {"const": 2}]}):
        with pytest.raises(EmptyConstraint):
            json_schema(schema)
    loop = {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}
    with pytest.raises(EmptyConstraint):
        json_schema(loop)


def test_large_and_deep_schemas_are_followed():
    """900 values in each other, 200000 choices; the time is that of the processor."""
    deep: Any = {"const": 1}
    for _ in range(800):
        deep = {"type": "array", "items": deep, "minItems": 1, "maxItems": 1}
    assert accepted(deep, "[" * 800 + "1" + "]" * 800) and not accepted(deep, "[" * 799 + "1" + "]" * 799)
    names = [f"name {k}" for k in range(200_000)]
    machine = automaton({"enum": names})
    cells = machine.start
    for byte in b'"name 123456"':
        cells = machine.step(cells, byte)
    assert machine.accepts(cells)
    assert jsonschema.Draft202012Validator({"enum": names[:3]}).is_valid(json.loads('"name 2"'))


def test_patterns_know_how_far_it_is_to_their_end(monkeypatch):
    from motes.language.constraints.schema.expression import compiled

    found: Pattern = compiled("^(ab|c){2}$")
    assert found.left(found.initial) == 2 and found.matches("abc") and not found.matches("ab")
    assert found.left(found.step(found.initial, ord("a"))) == 2
    assert not found.step(found.initial, ord("x"))
    with monkeypatch.context() as counted:
        asked: list[int] = []
        closure = Pattern.closure
        counted.setattr(
            Pattern, "closure", lambda self, states, *a, **k: asked.append(1) or closure(self, states, *a, **k)
        )
        assert len(compiled("^a" + "b?$" * 3000).far) > 6000 and len(asked) < 9  # and not once a state
    for wrong in ("(", "a{3,1}", "[b-a]", "*", "\\k", "(" * 200):
        with pytest.raises(MotesError):
            compiled(wrong)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_short_text_of_a_schema_is_written_down_at_once(schema):
    text = smallest(automaton(schema))
    assert text is not None and judge(schema, text)
