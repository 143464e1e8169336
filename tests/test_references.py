"""Each paper is written out once in the package, and each key stands for one paper."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import motes
from motes.core.cite import ENGINE

SOURCE = Path(motes.__file__).parent
FIELDS = ("key", "authors", "year", "title", "where")
NUMBER = re.compile(r"arxiv[: ]*(\d{4}\.\d{4,5})|(10\.\d{4,}/\S+)")


def written(text: str) -> list[dict[str, str]]:
    """The references that a file writes out."""
    calls = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call))
    calls = (c.args for c in calls if c.args and ast.unparse(c.func).split(".")[-1] == "Reference")
    return [{k: str(ast.literal_eval(v)) for k, v in zip(FIELDS, args, strict=False)} for args in calls]


def twice(texts: dict[str, str]) -> list[str]:
    """Titles, arXiv numbers, DOIs and keys that are written more than once."""
    places = defaultdict(list)
    for name, text in texts.items():
        for paper in written(text):
            number = NUMBER.search(paper["where"].lower())
            title = re.sub(r"\W+", " ", paper["title"].lower()).strip()
            marks = [title, paper["key"], *([number[1] or number[2]] if number else [])]
            for mark in marks:
                places[mark].append(name)
    return [f"{mark}: {', '.join(names)}" for mark, names in places.items() if len(names) > 1]


def test_every_paper_is_written_out_once() -> None:
    texts = {str(p.relative_to(SOURCE)): p.read_text() for p in SOURCE.rglob("*.py")}
    assert sum(len(written(text)) for text in texts.values()) > 100
    assert twice(texts) == [], "let one file hold it, and others take `reference.used_for(...)`"


def test_the_rule_sees_a_title_a_number_and_a_key() -> None:
    one = "Reference('a2020', 'A', 2020, 'On Slices', 'arXiv:2001.00001')"
    for other, mark in {
        "Reference('b', 'A', 2020, 'On slices.', 'Biometrika')": "on slices",
        "f(cite.Reference('b', 'A', 2021, 'Other', 'arXiv 2001.00001'))": "2001.00001",
        "Reference('a2020', 'A', 2020, 'On others', 'Biometrika')": "a2020",
    }.items():
        assert twice({"one": one, "other": other}) == [f"{mark}: one, other"]
    assert (
        twice({"one": one, "other": "f(Reference('b', 'B', 2020, 'On', 'arXiv:2001.00002'), Reference(**known))"}) == []
    )


def test_a_source_may_be_used_for_more_than_one_thing() -> None:
    paper = ENGINE[0].used_for("something else")
    assert paper.about == "something else"
    assert paper.text() == ENGINE[0].text() and paper.bibtex() == ENGINE[0].bibtex()
