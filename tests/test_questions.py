"""The question set of the benchmark of uncertainty is well formed."""

from __future__ import annotations

import json
import re
from pathlib import Path

ASKED = json.loads((Path(__file__).parents[1] / "benchmarks" / "data" / "questions.json").read_text())


def faults(asked: list[dict]) -> list[str]:
    """What is wrong with each entry; one line a fault."""
    found, seen = [], set()
    for item in asked:
        question = item.get("question", "")
        if set(item) != {"kind", "question", "answers"} or not re.fullmatch(r"\S[^\n|]*\S\?", question):
            found.append(f"{item!r}: kind, question (one line, ends with ?) and answers are wanted")
            continue
        answers = item["answers"]
        if not answers or len(set(answers)) != len(answers) or any(a != a.strip() or not a for a in answers):
            found.append(f"{question}: answers must be distinct texts without blanks around them")
        if any(len(a) > 30 or "\n" in a for a in answers):
            found.append(f"{question}: an answer is too long for twelve tokens")
        if question.casefold() in seen:
            found.append(f"{question}: asked twice")
        seen.add(question.casefold())
    return found


def test_questions_are_many_and_well_formed() -> None:
    assert not faults(ASKED)
    kinds = [item["kind"] for item in ASKED]
    assert len(ASKED) >= 150 and all(kinds.count(kind) >= 15 for kind in set(kinds)) and len(set(kinds)) >= 5


def test_a_broken_entry_is_found() -> None:
    good = {"kind": "arts", "question": "Who wrote Emma?", "answers": ["Jane Austen", "Austen"]}
    assert not faults([good])
    for broken in ({"question": "Who wrote Emma"}, {"answers": []}, {"answers": [" Austen"]}, {"answers": ["A", "A"]}):
        assert faults([{**good, **broken}])
    assert faults([good, good])


def test_simple_sums_are_right() -> None:
    """The answers of "What is 2 + 3?" and the like, computed again."""
    signs = {"+": int.__add__, "-": int.__sub__, "times": int.__mul__, "divided by": int.__floordiv__}
    checked = 0
    for item in ASKED:
        found = re.fullmatch(r"What is (\d+) (\+|-|times|divided by) (\d+)\?", item["question"])
        if found:
            checked += 1
            assert int(item["answers"][0]) == signs[found[2]](int(found[1]), int(found[3])), item["question"]
    assert checked >= 15
