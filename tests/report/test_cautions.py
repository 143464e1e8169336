"""What a reader is warned of."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from motes.core.run import Result
from motes.report.cautions import cautions
from motes.report.facts import read
from report import made


@pytest.fixture(scope="module")
def good():
    return read(made.run(made.Tempered(), 400))


def titles(f, **changes):
    return [c.title for c in cautions(dataclasses.replace(f, **changes))]


def test_a_good_run_has_none(good):
    assert titles(good) == []


@pytest.mark.parametrize("result", [r for r in Result if r is not Result.OK])
def test_every_other_ending_is_serious(good, result):
    found = cautions(dataclasses.replace(good, result=result))
    assert found[0].serious and result.value in found[0].title


def test_a_missing_error_bar_says_why(good):
    found = cautions(dataclasses.replace(good, se=math.nan, se_reason="all particles descend from one ancestor"))
    assert "No error bar on the log evidence" in found[0].title
    assert "All particles descend from one ancestor." in found[0].text


def test_thresholds(good):
    assert titles(good, se=1.3) == ["The log evidence is only known to ± 1.3 nats"]
    assert titles(good, ess=12.0) == ["Low effective sample size 12 of 400"]
    assert titles(good, max_weight=0.4) == ["One particle dominates"]
    assert titles(good, roots=1) == ["Thin genealogy"]
    assert titles(good, trace={}) == ["Nothing is known about the way"]
    ess = np.array([400.0, 2.0, 300.0, 300.0])
    trace = {"t": np.arange(4.0), "ess": ess, "resampled": np.zeros(4)}
    assert titles(good, trace=trace) == ["The population nearly collapsed at step 1"]
    trace = {"t": np.arange(4.0), "acceptance": np.array([np.nan, 0.5, 0.01, 0.4])}
    assert titles(good, trace=trace) == ["The kernel hardly moved the particles"]


def test_a_single_particle():
    found = cautions(read(made.run(made.Words(), 1)))
    assert [c.title for c in found] == ["A single particle"]


def test_copies_are_told():
    run = made.run(made.Words(steps=1, words=("a", "b")), 50)
    assert "Few distinct particles" in [c.title for c in cautions(read(run))]
    assert "Few distinct particles" not in [c.title for c in cautions(read(made.run(made.Words(), 50)))]


def test_values_that_are_not_finite_are_named():
    run = made.run(made.Tempered(), 50)
    view = {"theta": run.view["theta"].clone(), "tau": torch.zeros(50)}
    view["theta"][3, 1] = torch.nan
    found = cautions(read(dataclasses.replace(run, view=view)))
    assert found[0].serious and found[0].text.startswith("theta[1]:")
