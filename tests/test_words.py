"""The words of the project: no riddles, docstrings that say what a thing is, a glossary and a map that are true."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from inspect import Parameter
from pathlib import Path

import pytest

import motes
from test_signatures import Signatures, early, late, one, other, read, samplers

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


# ------------------------------------------------------------------------------------------------ glossary

Uses = dict[str, dict[str, str]]


def uses(all_: Signatures) -> Uses:
    """By knob the samplers that have it, with its default as the glossary writes it."""
    found: Uses = defaultdict(dict)
    for path, signature in all_.items():
        for p in signature.parameters.values():
            default = "required" if p.default is Parameter.empty else f"`{p.default!r}`".replace("'", '"')
            found[p.name][path.rsplit(".", 1)[1]] = default
    return found


def entries(page: str) -> dict[str, list[str]]:
    """The rows of the tables of knobs: what it is, its unit or range, its default, and where it is."""
    rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in page.splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows if len(row) == 5 and row[0].startswith("`")}


def wrong(page: str, all_: Signatures) -> list[str]:
    """The shared knobs that the page does not name, or of which it says what is not so."""
    known, found = entries(page), uses(all_)
    bad = [f"{knob}: no entry" for knob, by in found.items() if len(by) > 1 and knob not in known]
    for knob, cells in known.items():
        by, listed = found.get(knob, {}), re.findall(r"`([\w.]+)`", cells[3])
        bad += [f"{knob}: an empty cell"] if not all(cells) else []
        bad += [f"{knob}: not in {sampler}" for sampler in listed if sampler.removeprefix("motes.") not in by]
        bad += [f"{knob}: {default} is a default" for default in {*by.values()} if default not in cells[2]]
    return bad


def test_each_shared_knob_has_a_true_entry() -> None:
    run = {"motes.sample": inspect.signature(motes.sample)}
    page = (ROOT / "docs" / "glossary.md").read_text()
    assert wrong(page, {**samplers(), **run}) == []
    assert [knob for knob in run["motes.sample"].parameters if knob not in entries(page)] == []


def test_a_knob_without_a_true_entry_is_found() -> None:
    twins = read((f"twin.{f.__name__}", f) for f in (one, other))
    model = "| `model` | what is run | an object | required | `one`, `other` |\n"
    steps = "| `steps` | how many | at least 1 | `3`; `4` in `other` | `one`, `other` |\n"
    assert wrong(model + steps, twins) == []
    assert wrong(model, twins) == ["steps: no entry"]
    assert wrong(model + steps.replace("`4`", "`5`"), twins) == ["steps: `4` is a default"]
    assert wrong(model.replace("`one`", "`late`") + steps, twins) == ["model: not in late"]
    assert wrong(model.replace("an object", "") + steps, twins) == ["model: an empty cell"]
    assert wrong("", read((f"twin.{f.__name__}", f) for f in (late, early))) == ["model: no entry"]


# ------------------------------------------------------------------------------------------------ map


def astray(page: str) -> list[str]:
    """What the map of the code names and does not exist: files, and what is defined in them."""
    bad = []
    for path, rest in re.findall(r"\| `([\w/]+\.py)`: (.*) \|$", page, re.MULTILINE):
        file = SOURCE / path
        nodes = ast.walk(ast.parse(file.read_text())) if file.exists() else ()
        defined = {n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        bad += [f"{path}: {what}" for what in re.findall(r"`(\w+)`", rest) if what not in defined]
    return bad


def test_the_map_of_the_code_leads_to_what_it_names() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert astray(page) == []
    for wanted in ("language/rules/", "core/resampling/", "diffusion/processes/transition.py"):
        assert re.search(rf"^\| .* \| `{wanted}[\w/.]*`: ", page, re.MULTILINE), wanted


def test_a_map_that_leads_nowhere_is_found() -> None:
    assert astray("| a | `core/smc.py`: `advance` |") == []
    assert astray("| a | `core/gone.py`: `advance` |") == ["core/gone.py: advance"]
    assert astray("| a | `core/smc.py`: `retreat` |") == ["core/smc.py: retreat"]
