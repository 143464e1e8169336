"""The table of docs/uncertainty.md shows every function with the arguments that it has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from motes.language import uncertainty

PAGE = (Path(__file__).parents[2] / "docs" / "uncertainty.md").read_text()
ELSEWHERE = {"Probe", "best_split", "cluster", "embed_texts", "score", "score_run", "score_tokens"}
"""What is no estimate but serves them."""


def signature(name: str) -> str:
    knobs = inspect.signature(getattr(uncertainty, name)).parameters.values()
    return f"{name}({', '.join(k.name + ('' if k.default is k.empty else '=') for k in knobs)})"


def test_every_function_stands_in_the_table_with_its_arguments():
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    shown = {name: text for text, name in re.findall(r"`((\w+)\([^`]*\))`", rows) if name[0].islower()}
    functions = {k for k in uncertainty.__all__ if inspect.isfunction(getattr(uncertainty, k))} - ELSEWHERE
    assert functions - set(uncertainty.measures) <= set(shown) <= functions  # methods.md has all measures
    assert shown == {name: signature(name) for name in shown}
