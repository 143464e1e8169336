"""Runs as ArviZ trees."""

import dataclasses
import math
import sys

import arviz_stats
import numpy as np
import pytest
import torch
import xarray

from motes.errors import MotesError
from report import made


@pytest.fixture(scope="module")
def run():
    return made.run(made.Tempered(names=("theta", "copy")), 50)


def test_weights_stand_beside_the_draws(run):
    tree = run.to_arviz()
    assert isinstance(tree, xarray.DataTree)
    theta = tree["posterior"]["theta"]
    assert theta.dims[:2] == ("chain", "draw") and theta.shape == (1, 50, 3)
    assert np.array_equal(theta.values[0], run.view["theta"].numpy())
    stats = tree["sample_stats"]
    assert np.array_equal(stats["log_weight"].values[0], run.log_weight.numpy())
    assert stats["weight"].values.sum() == pytest.approx(1)
    assert float((theta * stats["weight"]).sum(("chain", "draw"))[0]) == pytest.approx(
        float(run.mean("theta").value[0])
    )
    assert tree["trace"]["ess"].values == pytest.approx(run.trace["ess"])


def test_attributes_say_what_the_run_was(run):
    a = run.to_arviz().attrs
    assert a["log_evidence"] == run.log_evidence and a["log_evidence_se"] == run.log_evidence_se
    assert a["seed"] == "1" and a["model"] == "Tempered" and a["version_torch"] == torch.__version__
    assert a["equally_weighted"] == 0


def test_the_resampled_tree_is_equally_weighted(run):
    tree = run.to_arviz(resampled=True)
    assert np.unique(tree["sample_stats"]["log_weight"].values).tolist() == [run.log_evidence]
    drawn = tree["posterior"]["theta"].values[0]
    assert np.array_equal(drawn, run.draws(50)["theta"].numpy())
    known = {tuple(row) for row in run.view["theta"].tolist()}
    assert {tuple(row) for row in drawn.tolist()} <= known
    assert np.array_equal(tree["posterior"]["copy"].values, tree["posterior"]["theta"].values)  # drawn together
    assert tree.attrs["equally_weighted"] == 1


@pytest.mark.parametrize("resampled", [False, True])
def test_trees_are_written_and_read(run, tmp_path, resampled):
    for k, r in enumerate((run, made.run(made.Words()), made.run(made.Blobs()), made.run(made.Tempered(0), 1))):
        r.to_arviz(resampled=resampled).to_netcdf(tmp_path / f"{k}.nc", engine="h5netcdf")
    back = xarray.open_datatree(tmp_path / "0.nc", engine="h5netcdf")
    assert np.array_equal(
        back["posterior"]["theta"].values, run.to_arviz(resampled=resampled)["posterior"]["theta"].values
    )
    assert back.attrs["n"] == 50


def test_texts_one_tensor_half_floats_and_odd_names(run):
    words = made.run(made.Words())
    assert words.to_arviz()["posterior"]["text"].values[0].tolist() == words.texts
    view = torch.zeros(50, 2, dtype=torch.bfloat16)
    assert dataclasses.replace(run, view=view).to_arviz()["posterior"]["x"].dtype == np.float32
    odd = {"a/b": view.float(), "deep": {"c": view[:, 0].long()}}
    names = set(dataclasses.replace(run, view=odd).to_arviz()["posterior"].data_vars)
    assert names == {"a_b", "deep['c']"}


def test_a_seedless_run_without_error_bar():
    tree = made.run(made.Tempered(1), 1).to_arviz()
    assert math.isnan(tree.attrs["log_evidence_se"]) and tree.attrs["log_evidence_se_reason"]


def test_what_arviz_cannot_hold_is_refused(run):
    with pytest.raises(MotesError, match="no tensors or texts"):
        dataclasses.replace(run, view={}).to_arviz()


def test_arviz_statistics_work_on_it(run):
    made_up = run.to_arviz(resampled=True)
    summary = arviz_stats.summary(made_up, var_names=["theta"], kind="stats")
    assert len(summary) == 3


def test_a_missing_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match=r"pip install 'motes\[arviz\]'"):
        run.to_arviz()
