"""Surprise token by token, and local against global laws, against the table's own numbers."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from language.tables import TABLE, table
from motes.errors import MotesError
from motes.language import Generation, TableModel
from motes.language.gallery import laws_html, local_and_global, surprise, surprise_html


def test_surprise_is_that_of_the_table():
    found = surprise(table(), "abb")
    rows = [TABLE[-1], TABLE[0], TABLE[1]]
    assert [t.text for t in found] == ["a", "b", "b"]
    assert [t.surprise for t in found] == pytest.approx([-float(r[v]) for r, v in zip(rows, (0, 1, 1), strict=True)])
    assert [t.entropy for t in found] == pytest.approx([-float((r.exp() * r).sum()) for r in rows])
    assert surprise(table(), "") == []


def test_the_page_escapes_what_a_model_writes():
    model = TableModel(["<script>", "&", "."], torch.zeros(4, 3))
    page = surprise_html(surprise(model, [0, 1]))
    assert "<script>" not in page and "&lt;script&gt;" in page and "1.10 nats" in page
    assert "<script>" not in laws_html([("<script>", 0.5, 0.5)])
    with pytest.raises(MotesError, match="no text"):
        laws_html([])


def test_local_and_global_laws_of_a_run():
    law = torch.tensor([0.5, 0.3, 0.1, 0.1]).log().expand(5, 4)
    model = Generation(
        TableModel(["a", "b", "c", "."], law), "", constraint=motes.language.regex("a{2}|bc"), max_tokens=5
    )
    rows = {
        t: (a, b) for t, a, b in local_and_global(motes.sample(model, 6000, seed=0, ess_threshold=0.0, progress=False))
    }
    valid = 0.5**2 * 0.1 + 0.3 * 0.1 * 0.1
    error = 4.9 * 0.5 / math.sqrt(6000)
    assert rows["bc"][0] == pytest.approx(0.3 / 0.8, abs=error)
    assert rows["bc"][1] == pytest.approx(0.003 / valid, abs=2 * error)
    assert abs(rows["bc"][0] - rows["bc"][1]) > 2 * error  # the two laws differ by more than the test can miss
    assert "37." in laws_html([("bc", 0.375, 0.107)])


def test_a_resampled_run_shows_neither_law():
    model = Generation(table(), "", constraint=motes.language.regex("ab{1,3}"), max_tokens=5)
    with pytest.raises(MotesError, match="ess_threshold=0"):
        local_and_global(motes.sample(model, 50, seed=0, ess_threshold=1.0, progress=False))
