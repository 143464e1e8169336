"""The fewest tokens that a text under a regular expression needs: never too many, and exact where it is plain."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch

import motes
from motes.errors import AllWeightsZero, EmptyConstraint
from motes.language import Generation, TableModel, regex
from motes.language.constraints.distance import distance
from motes.language.constraints.parsed import Parsers
from motes.language.constraints.pieces import pieces
from motes.language.constraints.schema.expression import widened

TOKENS = ["a", "b", "ab", "ba", "1", "é", "-", " ", "."]
PATTERNS = [
    "a*b", "(ab){2,3}", "a+1?b", "[ab]{3}-[^a]", "(a|ba)*1", "\\d\\d", "\\w\\W\\w", "[^b]é", ".{2}b", "a\\-\\s",
    "(ab|a)?b{2}", "[\\d-]{2}", "[^\\d]1", "\\.?a", "(?:a|)1",
]  # fmt: skip
MOST = 4


def model() -> TableModel:
    law = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.08, 0.06, 0.06, 0.05, 0.05], dtype=torch.float64)
    return TableModel(TOKENS, law.log().expand(len(TOKENS) + 1, -1))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_bound_is_below_every_text_and_reached_by_some(pattern):
    """All texts of at most four tokens: none that matches is cut off, and only what cannot end in time is."""
    law, end = model(), len(TOKENS) - 1
    matching = {
        row
        for length in range(MOST + 1)
        for row in itertools.product(range(end), repeat=length)
        if re.fullmatch(pattern, "".join(TOKENS[v] for v in row))
    }
    begun = {row[:k] for row in matching for k in range(len(row) + 1)}
    found = distance(pattern, pieces(law))
    assert found is not None
    for row in begun:
        states, left = found.start, MOST - len(row)
        for v in row:
            states = found.step(states, pieces(law).bytes[v])
        allowed = {v for v in range(end) if found.needs(states)[v] < left}
        assert {longer[-1] for longer in begun if len(longer) == len(row) + 1 and longer[:-1] == row} <= allowed
    if matching:
        assert found.least[0] <= min(map(len, matching))
        assert found.least[0] == min(map(len, matching)) or not pattern.isascii() or "\\" in pattern or "[^" in pattern


@pytest.mark.parametrize(
    "pattern", ["(?i)a", "[[:alpha:]]", "^a$", "a{2}{3}", "a**", "[a&&b]", "\\p{L}", "a*?", "(?P<n>a)"]
)
def test_what_two_notations_may_read_differently_has_no_bound(pattern):
    assert widened(pattern) is None


def test_no_text_is_begun_that_cannot_end_in_time(monkeypatch):
    """A text that lingers is sent to its end, and the mean is right; without the bound, the broken twin, it is lost."""
    pattern, p = "[ab]{0,40}1-1", [0.3, 0.2, 0.1, 0.1, 0.08, 0.06, 0.06, 0.05, 0.05]
    most = 9
    grown = [sum(p[:4]) ** k for k in range(most)]  # the probability of all beginnings of k tokens
    truth = sum(grown[k] * p[4] * p[6] * p[4] * (p[8] if k + 3 < most else 1.0) for k in range(most - 2))

    def run(seed: int) -> Any:
        task = Generation(model(), "", constraint=regex(pattern), max_tokens=most)
        return motes.sample(task, 60, seed=seed, progress=False)

    found = [run(seed) for seed in range(16)]
    z = torch.tensor([math.exp(one.log_evidence) for one in found]) / truth
    assert abs(float(z.mean()) - 1) < 4.9 * float(z.std()) / 4 and float(z.std()) / 4 < 0.2
    assert all((one.particles.log_weight > -math.inf).all() for one in found)
    monkeypatch.setattr(Parsers, "_fits", lambda self, states, left: np.ones(len(TOKENS), dtype=bool))
    with pytest.raises(AllWeightsZero):
        for seed in range(16):
            run(seed)


def test_an_expression_that_cannot_fit_is_empty_at_once():
    with pytest.raises(EmptyConstraint, match="at least 6"):
        Generation(model(), "", constraint=regex("(ab){6}"), max_tokens=5)
    Generation(model(), "", constraint=regex("(ab){6}"), max_tokens=6)
