"""JSON under a schema: what is not refused can go on, also within a character, an escape or a key."""

from __future__ import annotations

import random
from typing import Any

import pytest

from language.json_texts import SCHEMAS, automaton, texts
from motes.language.constraints.schema.automaton import Automaton, Cells
from motes.language.constraints.schema.partial import characters
from motes.language.constraints.schema.strings import OUTSIDE, Texts, read

NAMES = {"type": "object", "propertyNames": {"enum": ["é", "k"]}, "minProperties": 1}
SHORT = {"type": "object", "propertyNames": {"maxLength": 1}, "additionalProperties": {"type": "integer"}}
GREEK = {"type": "string", "pattern": "^[α-ω]{1,2}$"}


def stuck(machine: Automaton, cells: Cells) -> bool:
    return not machine.accepts(cells) and not any(machine.step(cells, byte) for byte in range(256))


def ends(schema: Any, seed: int, n: int) -> int:
    """How many places that are not refused have nothing behind them: texts near a schema, each with stray bytes."""
    machine, seen, found, rng = automaton(schema), set[Cells](), 0, random.Random(seed)
    for text in texts(schema, seed=seed, n=n):
        cells = machine.start
        for byte in text.encode():
            strays = [byte, rng.randrange(128), rng.randrange(128, 256), ord("\\"), ord('"')]
            new = {after for stray in strays if (after := machine.step(cells, stray))} - seen
            found += sum(stuck(machine, after) for after in new)
            seen |= new
            cells = machine.step(cells, byte)
            if not cells:
                break
    return found


@pytest.mark.parametrize("n", [8, pytest.param(80, marks=pytest.mark.slow)])
def test_what_is_not_refused_can_go_on(n, monkeypatch):
    """The broken twin looks at whole characters only: half of a character that no name has is a dead end."""
    schemas = [*SCHEMAS, NAMES, SHORT, GREEK]
    assert [ends(schema, at, n) for at, schema in enumerate(schemas)] == [0] * len(schemas)
    monkeypatch.setattr(Texts, "goes_on", lambda self, state, ranges: True)
    monkeypatch.setattr(Automaton, "_goes_on", lambda self, around, text, ranges: True)
    assert sum(ends(schema, at, n) > 0 for at, schema in enumerate(schemas)) > 8


def test_the_characters_that_a_part_can_become():
    """Those of every part are those of the parts one byte on, and the characters that a byte ends; none is left out."""
    rng, todo, seen = random.Random(0), [OUTSIDE], {OUTSIDE}
    while todo:
        within = todo.pop()
        found: set[tuple[int, int]] = set()
        for byte in range(256):
            after, char = read(within, byte) or (OUTSIDE, -1)
            if char is None:
                assert characters(after), (within, byte)
                found.update(characters(after))
                if after not in seen and (len(after) < 4 or after[1] > 1 or rng.random() < 0.05):
                    seen.add(after)
                    todo.append(after)
            elif char >= 0:
                found.add((char, char))
        joined: list[list[int]] = []
        for a, b in sorted(found):
            if joined and a <= joined[-1][1] + 1:
                joined[-1][1] = max(b, joined[-1][1])
            else:
                joined.append([a, b])
        assert joined == [list(r) for r in characters(within)], within
    assert len(seen) > 500


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"enum": ["é", "né"]}, ['"é', '"\\u00e9', '"n\\u00'], ['"\\u00e8', '"\\ud8', '"n\\n', '"né\\']),
        ({"type": "string", "maxLength": 1}, ['"é', '"\\ud83d\\ude00'], ['"é\\', '"aé', '"a\\u']),
        (GREEK, ['"\\u03b', '"ω\\'], ['"\\u04', '"\\ud8', '"ωω\\']),
        (NAMES, ['{"\\u00e9', '{"k'], ['{"kk', '{"\\u0041', '{"\\ud8']),
        (SHORT, ['{"a":', '{"\\u0041'], ['{"aa', '{"a\\u00', '{"aé', '{"a": 1, "a']),
    ],
)
def test_a_part_that_can_become_nothing_is_refused_at_once(schema, right, wrong):
    machine = automaton(schema)

    def alive(text: str) -> bool:
        cells = machine.start
        for byte in text.encode():
            cells = machine.step(cells, byte)
        return bool(cells)

    assert all(map(alive, right)) and not any(map(alive, wrong))
    half = "é".encode()[:1]
    cells = machine.start
    for byte in b'"ab' + half:  # two letters, and the first byte of a third: too long, or on no list
        cells = machine.step(cells, byte)
    assert not cells
