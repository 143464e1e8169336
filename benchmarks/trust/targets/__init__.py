"""The targets, one file each (a file may hold a family of them, like two dimensions of one law)."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.trust.target import Target


def load() -> dict[str, Target]:
    """All targets by name.

    Raises:
        ValueError: two files give a target the same name.
    """
    found: dict[str, Target] = {}
    for file in sorted(m.name for m in iter_modules(__path__)):
        for target in import_module(f"{__name__}.{file}").TARGETS:
            if target.name in found:
                raise ValueError(f"two targets are called {target.name}")
            found[target.name] = target
    return found
