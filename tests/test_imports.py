"""No circle of imports: not at run time, not for the type checker, not hidden in functions."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
Graph = dict[str, set[str]]


def imported(name: str, text: str, modules: set[str], is_package: bool) -> set[str]:
    """The modules that a module imports anywhere in its text; `from a import b` is of `a.b` where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            parts = name.split(".")[: (1 if is_package else 0) - node.level or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {inner if (inner := f"{base}.{a.name}") in modules else base for a in node.names}
    return found & modules - {name}


def circles(sources: dict[str, str], packages: frozenset[str] = frozenset()) -> list[list[str]]:
    """The groups of modules each of which can be reached from all others."""
    graph = {name: imported(name, text, set(sources), name in packages) for name, text in sources.items()}

    def reached(start: str, graph: Graph) -> set[str]:
        seen, left = set(), [start]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    reach = {name: reached(name, graph) for name in graph}
    groups = {frozenset(m for m in reach[name] if name in reach[m]) for name in graph if name in reach[name]}
    return sorted(sorted(group) for group in groups)


def test_no_imports_go_in_a_circle() -> None:
    sources, packages = {}, set()
    for path in (SOURCE / "motes").rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources[name] = path.read_text()
        packages |= {name} if parts[-1] == "__init__" else set()
    assert circles(sources, frozenset(packages)) == []


def test_a_circle_is_found_wherever_it_hides() -> None:
    straight = {"m": "", "m.a": "import m.b", "m.b": "from m import c", "m.c": "import os"}
    assert circles(straight, frozenset({"m"})) == []
    for hidden in (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from m.a import f",
        "def f():\n    from .a import f",
        "class A:\n    def f(self):\n        import m.a",
    ):
        assert circles(straight | {"m.c": hidden}, frozenset({"m"})) == [["m.a", "m.b", "m.c"]]
    inner = {"m": "from .a import f", "m.a": "from m import f"}  # a room that comes in by the door of its own package
    assert circles(inner, frozenset({"m"})) == [["m", "m.a"]]
