"""What a run can be turned into by modules that core may not import; each is loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

EXPORTS = {
    "report": "motes.report.html:report",
    "diagnose": "motes.report.chains:diagnose",
    "arviz": "motes.report.arviz:to_arviz",
    "dataframe": "motes.report.dataframe:to_dataframe",
}


def export(name: str) -> Callable[..., Any]:
    """The function registered under `name`."""
    module, function = EXPORTS[name].split(":")
    return getattr(import_module(module), function)
