"""Texts of a grammar are compared where a part of them ends: behind the literals that separate and close."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from motes.errors import MotesError
from motes.language import Generation, TableModel, grammar, regex
from motes.language.constraints.schema.marks import BEGINNING, JSON, of_grammar, scanned

TOKENS = ["(", ")", ",", "a", "b", "1", "."]
LAW = torch.tensor([0.02, 0.02, 0.02, 0.45, 0.42, 0.02, 0.05], dtype=torch.float64)
LIST = 'start: "(" NAME "," NUM "," NAME ")"  // a name, a number\nNAME: /[ab]{1,12}/\nNUM: /1{1,3}/\n'
MOST = 24


def model() -> TableModel:
    return TableModel(TOKENS, LAW.log().expand(len(TOKENS) + 1, -1))


def truth() -> float:
    """log P(valid): the sum over the lengths of both names and of the number."""
    p = dict(zip(TOKENS, LAW.tolist(), strict=True))
    total = 0.0
    for first in range(1, 13):
        for number in range(1, 4):
            for second in range(1, 13):
                length = first + number + second + 4
                letters = (p["a"] + p["b"]) ** (first + second) * p["1"] ** number
                marks = p["("] * p[","] ** 2 * p[")"] * (p["."] if length < MOST else 1.0)
                total += letters * marks if length <= MOST else 0.0
    return math.log(total)


def estimates(step: str, n: int, runs: int) -> torch.Tensor:
    """(runs,) log P(valid), -inf where all texts of a run were lost."""
    out = []
    for seed in range(runs):
        task = Generation(model(), "", constraint=grammar(LIST), max_tokens=MOST, step=step)
        try:
            out.append(motes.sample(task, n, seed=seed, progress=False).log_evidence)
        except MotesError:
            out.append(-math.inf)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("runs", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_texts_that_linger_in_a_name_are_not_preferred(runs):
    """By parts the estimates are right and lie together; token by token, the broken twin, they are farther off."""
    found = estimates("auto", 32, runs)
    ratio = (found - truth()).exp()
    assert abs(float(ratio.mean()) - 1) < 4.9 * float(ratio.std()) / math.sqrt(runs)
    assert float(ratio.std()) / math.sqrt(runs) < (0.3 if runs == 20 else 0.07)
    far, by_token = ((e - truth()).clamp(min=-5).abs().mean() for e in (found, estimates("token", 32, runs)))
    assert float(by_token) > 1.4 * float(far)


def test_the_separators_of_a_grammar():
    found = of_grammar(LIST)
    assert found is not None and {*found.bytes} == {*b",)"} and not found.quoted
    assert scanned(BEGINNING, b"(ab,1,", found).marks == 2
    words = 'start: "yes" | "no"  // "," in a comment\n'
    assert of_grammar(words) is None and of_grammar('start: /a,b;/ "x"') is None
    rows = of_grammar('start: row+\nrow: STRING ";" "\\n"\nSTRING: /"[^"]*"/')
    assert rows is not None and {*rows.bytes} == {*b";\n"} and rows.quoted
    assert scanned(BEGINNING, b'"a;b";\n"', rows).marks == 2
    assert {*JSON.bytes} == {*b",}]"}


def test_what_has_no_separators_is_resampled_by_tokens():
    for constraint, boundary in (
        (grammar(LIST), "structure"),
        (grammar('start: "a"+'), "token"),
        (regex("(a,)+"), "token"),
    ):
        assert Generation(model(), "", constraint=constraint, max_tokens=MOST).settings()["step"] == boundary
    assert (
        Generation(model(), "", constraint=grammar(LIST), max_tokens=MOST, step="token").settings()["step"] == "token"
    )
