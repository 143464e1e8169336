"""Every spelling of a text counts: characters that must come may be written by any tokens."""

from __future__ import annotations

import json
import math
from itertools import pairwise, product

import pytest
import torch

import motes
from motes.language import Constraint, DiscreteParticleFilter, TableModel, choices, grammar, json_schema, regex
from motes.language.constraints.parsed import Parsed

WORDS = ["a", "b", "c", "ab", "bc", "abc", "."]
SCHEMA = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
PARTS = ["{", '"', "a", '"a"', ":", '":', '{"', "1", "}", "1}", "."]


def table(tokens: list[str]) -> TableModel:
    logits = torch.randn(len(tokens) + 1, len(tokens), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return TableModel(tokens, logits)


def summed(model: TableModel, valid: set[str], most: int) -> float:
    """log of the probability of all ways to spell the texts `valid`, cut ones too."""
    total, end = 0.0, model.end[0]
    law = {v: torch.log_softmax(model.row((v,)), 0).tolist() for v in range(end)}
    first = torch.log_softmax(model.row(()), 0).tolist()
    for length in range(1, most + 1):
        for text in product(range(end), repeat=length):
            if model.decode(text) in valid:
                p = first[text[0]] + sum(law[a][b] for a, b in pairwise(text))
                total += math.exp(p + (law[text[-1]][end] if length < most else 0.0))
    return math.log(total)


def found(model: TableModel, constraint: Constraint, most: int) -> float:
    """The same by every continuation, nothing left to chance."""
    run = motes.sample(
        DiscreteParticleFilter(model, "", constraint=constraint, max_tokens=most), 500, seed=0, progress=False
    )
    assert run.log_evidence_se == 0
    return run.log_evidence


@pytest.mark.parametrize(
    "constraint",
    [regex("abc|cab|bb"), grammar('start: "abc" | "cab" | "bb"'), choices(["abc", "cab", "bb"])],
    ids=["regex", "grammar", "choices"],
)
def test_all_spellings_of_a_text_that_must_come_count(constraint):
    model = table(WORDS)
    assert found(model, constraint, 4) == pytest.approx(summed(model, {"abc", "cab", "bb"}, 4), abs=1e-9)


@pytest.mark.parametrize("layout", ["compact", "any"])
def test_all_spellings_of_json_count(layout):
    model = table(PARTS)
    constraint = json_schema(SCHEMA, layout=layout)
    assert found(model, constraint, 6) == pytest.approx(summed(model, {'{"a":1}'}, 6), abs=1e-9)


def test_the_twin_that_knows_only_the_tokenizers_own_spelling():
    """What llguidance does by itself: it forces characters that must come in one spelling."""
    from llguidance import LLMatcher

    model, valid = table(WORDS), {"abc", "cab", "bb"}
    forced = Parsed("regular expression", "abc|cab|bb", LLMatcher.grammar_from_regex("abc|cab|bb"))
    assert found(model, forced, 4) < summed(model, valid, 4) - 0.005
    model, schema = table(PARTS), json.dumps(SCHEMA)
    one = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
    assert found(model, Parsed("JSON schema", schema, one, "compact"), 6) < summed(model, {'{"a":1}'}, 6) - 0.005
