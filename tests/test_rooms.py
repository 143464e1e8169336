"""The house can be found one's way in: folders of some twenty files, one class a name, doors that are packages."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = sorted((SOURCE / "motes").rglob("*.py"))
ONE_KIND = {"kernels", "language/rules"}
"""Folders whose files are entries of one kind, found by being there, with what defines the kind beside them."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [*sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
INSIDE = {"benchmarks/rng.py", "benchmarks/resampling.py", "benchmarks/language.py"}
"""Benchmarks that time what is inside."""


def test_no_folder_is_crowded() -> None:
    size = Counter(str(p.parent.relative_to(SOURCE / "motes")) for p in MODULES if p.name != "__init__.py")
    assert {folder: n for folder, n in size.items() if n > 20 and folder not in ONE_KIND} == {}


def test_every_room_is_a_package() -> None:
    assert [str(p) for p in {p.parent for p in MODULES} if not (p / "__init__.py").exists()] == []


def classes(sources: dict[str, str]) -> dict[str, list[str]]:
    """The public class names that stand in two places."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name)
    return {name: where for name, where in found.items() if len(where) > 1}


def test_a_class_name_is_one_thing() -> None:
    assert classes({str(p.relative_to(SOURCE)): p.read_text() for p in MODULES}) == {}
    assert classes({"a": "class A: pass", "b": "class A: pass\nclass B: pass"}) == {"A": ["a", "b"]}


def exported() -> dict[str, list[str]]:
    """What each package's `__all__` lists."""
    packages = [".".join(p.parent.relative_to(SOURCE).parts) for p in MODULES if p.name == "__init__.py"]
    return {name: vars(import_module(name))["__all__"] for name in packages if "__all__" in vars(import_module(name))}


def deep(text: str, doors: dict[str, list[str]]) -> list[str]:
    """The imports of a program that go past the doors."""
    past = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "motes":
            past += [f"{node.module}.{a.name}" for a in node.names if a.name not in doors.get(node.module, [])]
        if isinstance(node, ast.Import):
            past += [a.name for a in node.names if a.name.startswith("motes.") and a.name not in doors]
    return past


@pytest.mark.parametrize("path", PAGES + PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_users_come_in_by_the_doors(path: Path) -> None:
    if str(path.relative_to(ROOT)) in INSIDE:
        pytest.skip("times what is inside")
    doors = exported()
    assert [name for program in programs(path) for name in deep(program, doors)] == []


def programs(path: Path) -> list[str]:
    """The code of a file, or of a page that runs from top to bottom."""
    text = path.read_text()
    if path.suffix == ".py":
        return [text]
    return [] if path.name == "architecture.md" else re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_what_goes_past_a_door_is_found() -> None:
    doors = {"motes": ["sample"], "motes.density": ["Tempering"]}
    assert deep("from motes import sample\nfrom motes.density import Tempering\nimport motes", doors) == []
    assert deep("from motes.density.tempering import Tempering", doors) == ["motes.density.tempering.Tempering"]
    assert deep("import motes.density.tempering", doors) == ["motes.density.tempering"]


def test_a_thing_has_one_door() -> None:
    """A package may repeat what a part of it offers; two packages side by side do not offer the same thing."""
    doors: dict[int, list[str]] = defaultdict(list)
    for package, names in exported().items():
        if package != "motes":
            module = import_module(package)
            for name in names:
                thing = getattr(module, name)
                if not isinstance(thing, (str, int, tuple)):
                    doors[id(thing)].append(f"{package}.{name}")
    apart = []
    for where in doors.values():
        parts = sorted((w.rpartition(".")[0] for w in where), key=len)
        apart += [where] if any(not p.startswith(parts[0]) for p in parts) else []
    assert apart == []
