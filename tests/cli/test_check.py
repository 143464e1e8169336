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
    assert ("wrong for slope" in said) == bool(code) and said.count("skipped") == 3


def test_the_command_knows_every_check() -> None:
    assert list(CHECKS) == list(NAMES)


def test_other_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(Path(__file__).with_name("models.py"))]) == 2
    assert "check needs a Density" in capsys.readouterr().err


SIMULATED = """
import motes, torch
from torch.distributions import Normal
prior = {"mean": Normal(torch.zeros((), dtype=torch.float64), 1.0)}
def density(data): return motes.Density(lambda p: Normal(p["mean"], 1.0).log_prob(data).sum(), prior)
def simulate(rng, p): return p["mean"] + SD * rng.at("noise").normal((20,))
data = torch.linspace(-1, 1, 20, dtype=torch.float64)
"""


def test_the_page_shows_findings_ranks_and_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "mine & co.py", tmp_path / "deep" / "found.html"
    file.write_text(SIMULATED.replace("SD", "3.0"))
    command = ["check", str(file), "--only", "batch", "calibration", "predictive", "--replicates", "30"]
    assert main([*command, "--html", str(page)]) == 1
    said, text = capsys.readouterr(), page.read_text()
    assert f"wrote {page}" in said.out and "%|" not in said.err  # no bar where nobody looks
    assert "mine &amp; co.py" in text and "<script" not in text
    assert "calibration: FAILED" in text and "batch: ok" in text and ", outside" in text
    charts = text.count('<figure class="card">')
    assert charts == 2 + 5 == text.count('<svg role="img"')  # the mean and the log-likelihood; five statistics


@pytest.mark.parametrize(("sd", "code"), [("1.0", 0), ("3.0", 1)])
def test_checks_that_simulate(sd: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SIMULATED.replace("SD", sd))
    command = ["check", str(file), "--quiet", "--only", "calibration", "predictive", "--replicates", "40"]
    assert main(command) == code
    said = capsys.readouterr().out
    assert ("FAILED   calibration" in said) == bool(code)
    assert code == 0 or ("too narrow" in said and "mean" in said)


def test_half_a_setting_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SIMULATED.replace("data = ", "other = "))
    assert main(["check", str(file)]) == 2
    assert "must define data too" in capsys.readouterr().err
