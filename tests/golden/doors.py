"""The doors of packages whose entries are found, written out for tools that read and do not run: `__init__.pyi`."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

from golden.names import SOURCE


def doors() -> list[Path]:
    """The packages that ask a registry what they offer."""
    return [p for p in sorted(SOURCE.rglob("__init__.py")) if ".door(globals()" in p.read_text()]


def written(init: Path) -> str:
    """The door of a package: what it imports by name, and a line for each entry."""
    package = ".".join(init.parent.relative_to(SOURCE).parts)
    module, tree = import_module(package), ast.parse(init.read_text())
    lines = {ast.unparse(node) for node in tree.body if isinstance(node, ast.ImportFrom)}
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    renamed = set()
    for name in set(module.__all__) - imported:
        entry = getattr(module, name)
        own = inspect.getmodule(entry).__name__  # type: ignore[union-attr]
        lines.add(f"from {own} import {entry.__name__}")
        if name != entry.__name__:
            renamed.add(f"{name} = {entry.__name__}")
    head = [f'"""{module.__doc__.strip().splitlines()[0]}"""', "", "# written by `make golden`"]  # type: ignore[union-attr]
    everything = ["", "__all__ = [", *(f"    {name!r},".replace("'", '"') for name in sorted(module.__all__)), "]"]
    return "\n".join([*head, *sorted(lines), *sorted(renamed), *everything, ""])


def write() -> None:
    """Write all of them anew."""
    for init in doors():
        init.with_suffix(".pyi").write_text(written(init))
