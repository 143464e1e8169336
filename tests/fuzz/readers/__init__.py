"""One file a reader; `readers()` lists them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fuzz.harness import Reader


def readers() -> dict[str, Reader]:
    """All readers by name, those whose packages are installed."""
    found = {}
    for module in iter_modules(__path__):
        try:
            reader = import_module(f"{__name__}.{module.name}").READER
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in ("motes", "fuzz", "core"):
                raise
            continue  # an extra that is not installed
        found[reader.name] = reader
    return found
