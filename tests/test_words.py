"""The words of the project: no riddles, and docstrings that say what a thing is or does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "motes"
MODULES = sorted(SOURCE.rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*MODULES, *PAGES, *sorted(p for p in SOURCE.rglob("*") if p.suffix in {".jinja", ".md"})]
RIDDLE = re.compile(
    r"\b(so many|as (?:it|they) stands?|in the place of|nobody|what [\w ]+ owes?|as the population bears)\b", re.I
)
OPENING = re.compile(
    r"(This|That|These|Those|It|Its|They|Here|There|Will|Used|Helpers?|Returns?|Gets?|Utility|Wrapper|Called|Just|Simply"
    r"|Class|Module|Method|(?:A|An|The) (?:helper|wrapper|utility|class|method|module))\b"
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------ sentences


def riddles(text: str) -> list[str]:
    """Phrases that say too little, also where a line of text, a comment or a message ends within them."""
    return RIDDLE.findall(re.sub(r'[" ]*\n[ #>]*(?:f?")?', " ", text))


def test_texts_hold_no_riddles() -> None:
    assert {name(p): found for p in TEXTS if (found := riddles(p.read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    ["Room for so many rows.", "# after so\n    # many steps", '"the numbers as "\n    f"they stand"', "Nobody knows."],
)
def test_a_riddle_is_found(text: str) -> None:
    assert len(riddles(text)) == 1


def test_a_plain_sentence_is_no_riddle() -> None:
    assert riddles("Many steps, placed as they are in the places of the text; so\nthe many stand. What it owns.") == []


def opened(source: str) -> list[str]:
    """The docstrings that begin with a word that stands for nothing yet, or whose first part has no end."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or ".").split("\n\n")[0]
            found += [first] if OPENING.match(first) or first[-1] not in ".:?" else []
    return found


def test_first_sentences_say_what_a_thing_is_or_does() -> None:
    assert {name(p): found for p in MODULES if (found := opened(p.read_text()))} == {}


@pytest.mark.parametrize(
    "first", ["This adds.", "Returns the sum.", "Helper of sums.", "Will add two.", "A helper for sums.", "The sum"]
)
def test_a_first_sentence_that_says_nothing_is_found(first: str) -> None:
    assert opened(f'def add(a, b):\n    """{first}"""') == [first]
    assert opened('def add(a, b):\n    """The sum of a and b."""\ndef bare(): ...') == []
