"""Runs as tables: names, weights, chains, texts, and names that are taken."""

import builtins
import dataclasses

import pytest
import torch

import motes
from motes.errors import MotesError
from report.made import Tempered, Words

pd = pytest.importorskip("pandas", reason="comes with the extra motes[arviz]")


def tempered(names: tuple[str, ...] = ("theta",)) -> motes.Run:
    return motes.sample(Tempered(names=names), 64, seed=1, progress=False)


def test_weighted_particles_have_a_column_a_number_and_their_weights():
    run = tempered()
    table = run.to_dataframe()
    assert list(table.columns) == ["theta[0]", "theta[1]", "theta[2]", "log_weight", "weight"]
    assert table["theta[1]"].tolist() == run.view["theta"][:, 1].tolist()
    assert table["weight"].sum() == pytest.approx(1)
    means = [(table[f"theta[{k}]"] * table["weight"]).sum() for k in range(3)]
    assert means == pytest.approx(run.mean("theta").value.tolist())
    assert table.attrs["log_evidence"] == run.log_evidence
    assert table.attrs["seed"] == 1


def test_resampled_draws_have_no_weights():
    run = tempered()
    table = run.to_dataframe(resampled=True)
    assert list(table.columns) == ["theta[0]", "theta[1]", "theta[2]"]
    assert table["theta[0]"].tolist() == run.draws(64)["theta"][:, 0].tolist()


def test_chains_have_their_numbers_and_no_weights():
    normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    density = motes.Density(lambda x: -0.5 * (x - 1).square().sum(-1), normal)
    run = motes.sample(motes.density.Chains(density, draws=5), 4, seed=0, progress=False)
    table = run.to_dataframe()
    assert list(table.columns) == ["chain", "draw", "x[0]", "x[1]"]
    assert len(table) == 4 * run.view.shape[1]
    row = table[(table["chain"] == 2) & (table["draw"] == 3)]
    assert row["x[1]"].item() == run.view[2, 3, 1].item()


def test_texts_and_whole_numbers_keep_their_kind():
    words = motes.sample(Words(), 16, seed=0, progress=False)
    assert words.to_dataframe()["text"].tolist() == words.texts
    run = dataclasses.replace(tempered(), view={"k": torch.arange(64), "s": torch.ones(64)})
    table = run.to_dataframe()
    assert (table["k"].dtype, table["s"].dtype) == ("int64", "float64")


def test_names_that_are_taken_are_kept():
    run = tempered()
    run = dataclasses.replace(run, view={"weight": run.view["theta"][:, 0]})
    table = run.to_dataframe()
    assert list(table.columns) == ["weight", "log_weight", "run_weight"]
    assert table["weight"].tolist() == run.view["weight"].tolist()


def test_what_no_table_holds_is_refused():
    with pytest.raises(MotesError, match="no tensors or texts"):
        dataclasses.replace(tempered(), view={}).to_dataframe()


def test_without_pandas_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest, **more)

    run = tempered()
    run.to_dataframe()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"motes\[arviz\]"):
        run.to_dataframe()
