"""Each paper stands once in the bibliography, and is cited."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import motes
from motes.core.cite import ENGINE, cited

SOURCE = Path(motes.__file__).parent
BIBLIOGRAPHY = (SOURCE / "core" / "bibliography.json").read_text("utf-8")
NUMBER = re.compile(r"arxiv[: ]*(\d{4}\.\d{4,5})|(10\.\d{4,}/\S+)")
CITED = re.compile(r'\bcited\(\s*"([^"]+)"')


def twice(text: str) -> list[str]:
    """Titles, arXiv numbers, DOIs and keys that a bibliography has more than once."""
    places = defaultdict(list)
    for key, paper in json.loads(text, object_pairs_hook=list):
        paper = dict(paper)
        number = NUMBER.search(paper["where"].lower())
        title = re.sub(r"\W+", " ", paper["title"].lower()).strip()
        for mark in (title, key, *([number[1] or number[2]] if number else [])):
            places[mark].append(key)
    return [f"{mark}: {', '.join(keys)}" for mark, keys in places.items() if len(keys) > 1]


def test_every_paper_is_written_out_once() -> None:
    assert twice(BIBLIOGRAPHY) == []


def test_every_paper_is_cited() -> None:
    used = {key for path in SOURCE.rglob("*.py") for key in CITED.findall(path.read_text())}
    assert len(used) > 100 and used == set(json.loads(BIBLIOGRAPHY))


def test_the_rule_sees_a_title_a_number_and_a_key() -> None:
    one = '"a2020": {"title": "On Slices", "where": "arXiv:2001.00001"}'
    for other, found in {
        '"b": {"title": "On slices.", "where": "Biometrika"}': "on slices: a2020, b",
        '"b": {"title": "Other", "where": "arXiv 2001.00001"}': "2001.00001: a2020, b",
        '"a2020": {"title": "On others", "where": "Biometrika"}': "a2020: a2020, a2020",
    }.items():
        assert twice(f"{{{one}, {other}}}") == [found]
    assert twice(f'{{{one}, "b": {{"title": "On", "where": "arXiv:2001.00002"}}}}') == []


def test_a_source_may_be_used_for_more_than_one_thing() -> None:
    paper = cited(ENGINE[0].key, "something else")
    assert paper.about == "something else"
    assert paper.text() == ENGINE[0].text() and paper.bibtex() == ENGINE[0].bibtex()
