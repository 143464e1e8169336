"""What is written runs: the code in README.md and docs/, the examples of docstrings, the scripts in examples/."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import motes
from process import python

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
CONTRACT = ROOT / "docs" / "architecture.md"  # signatures, not programs
PROGRAMS = {p: "\n".join(BLOCK.findall(p.read_text())) for p in PAGES if BLOCK.search(p.read_text()) and p != CONTRACT}
LONG = ROOT / "docs" / "choosing.md"  # one run of nearly every sampler, each of which has tests of its own
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ELSEWHERE = ("__main__", "cuda")  # what runs when it is imported, and what needs a device
MODULES = [m.name for m in pkgutil.walk_packages(motes.__path__, "motes.") if not m.name.endswith(ELSEWHERE)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def runs(command: list[str], folder: Path) -> str:
    """The output of a Python process that must succeed."""
    done = python(*command, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow) if p == LONG else p for p in PROGRAMS], ids=name
)
def test_code_on_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page as a process of its own, the others as modules, since most of a process would be imports."""
    file = tmp_path / "page.py"
    file.write_text(PROGRAMS[page])
    if page == PAGES[0]:
        runs([str(file)], tmp_path)
    else:
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(file), run_name="__main__")


def test_the_readme_has_an_example_for_each_domain() -> None:
    assert all(word in PROGRAMS[ROOT / "README.md"] for word in ("Tempering", "Generation", "steered_digits"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """The documentation's own build checks links more closely; this one is quick and reads README.md too."""
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    assert runs([str(example)], tmp_path), "an example prints what it found"


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_true(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert failed == 0
