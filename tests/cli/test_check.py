"""`motes check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motes.cli.check import NAMES
from motes.cli.main import main
from motes.density.checks import CHECKS

FILE = """
import motes, torch
x = torch.linspace(-1, 1, 9)
prior = {"slope": torch.distributions.Normal(0.0, 1.0)}
model = motes.Density(lambda p: -(p["slope"]BREAK[:, None] * x - x).square().sum(1) + 0 * p["slope"], prior)
"""


@pytest.mark.parametrize(("broken", "code"), [("", 0), (".detach()", 1)])
def test_check(broken: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "found.json"
    file.write_text(FILE.replace("BREAK", broken))
    assert main(["check", str(file), "--out", str(out)]) == code
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["ok"] == (code == 0) and len(said.splitlines()) == len(CHECKS)
    assert ("wrong for slope" in said) == bool(code)


def test_the_command_knows_every_check() -> None:
    assert list(CHECKS) == list(NAMES)


def test_other_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(Path(__file__).with_name("models.py"))]) == 2
    assert "check needs a Density" in capsys.readouterr().err
