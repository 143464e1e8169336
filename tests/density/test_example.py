"""The example runs and says what it should."""

import runpy
import sys
from pathlib import Path


def test_the_posterior_example(monkeypatch, capsys):
    path = Path(__file__).parents[2] / "examples" / "posterior.py"
    assert len(path.read_text().splitlines()) < 120
    monkeypatch.setattr(sys, "argv", [str(path), "64"])
    found = runpy.run_path(str(path))
    assert "log Bayes factor" in capsys.readouterr().out
    assert found["bayes"] > 20  # more particles say 37.7 +- 0.2
