"""Every estimate says how its error was found, or why there is none."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.errors import ShapeError

SOURCE = Path(__file__).parents[2] / "src"


def silent(text: str) -> list[str]:
    """The calls of `Estimate` that name no method, but for those whose error is written as NaN and has a reason."""
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Estimate"]
    said = {id(n) for n in calls if any(k.arg == "method" for k in n.keywords)}
    none = {id(n) for n in calls if len(n.args) > 2 and "nan" in ast.unparse(n.args[1])}
    return [ast.unparse(n) for n in calls if id(n) not in said | none]


def test_every_estimate_names_its_method() -> None:
    assert {str(p): found for p in SOURCE.rglob("*.py") if (found := silent(p.read_text()))} == {}
    assert silent("Estimate(1.0, 0.1)") == ["Estimate(1.0, 0.1)"] == silent("Estimate(1.0, 0.1)\nEstimate(x, nan, why)")


@pytest.mark.parametrize("se", [math.nan, torch.tensor(math.nan), torch.tensor([0.1, math.nan])])
def test_no_error_without_a_reason(se: float | torch.Tensor) -> None:
    assert "came out as NaN" in Estimate(0.0 * se, se).reason
    assert Estimate(0.0 * se, se, "too few").reason == "too few"


def test_one_draw_has_no_spread() -> None:
    with pytest.raises(ShapeError, match="at least 2 samples, not 1"):
        independent_mean(torch.ones(1, 3))
    two = independent_mean(torch.tensor([1.0, 3.0]))
    assert float(two.value) == 2.0 and abs(float(two.se) - 1.0) < 1e-12
