"""What is seen of a run with replicas: its populations in the report, in ArviZ, in a table, and in the charts."""

import math

import numpy as np
import pytest
import torch

from motes.report import facts, plots
from motes.report.html import render
from motes.report.table import table
from report import made

K = 3


@pytest.fixture(scope="module")
def run():
    return made.run(made.Tempered(), 64, replicas=K)


def test_the_report_lists_the_populations(run):
    page = render(run)
    assert "The populations" in page and "A line for each of the 3 populations" in page
    for part in run.replicas:
        assert f"<td>{part.seed}</td>" in page
    assert "The populations" not in render(run.replicas[1])


def test_intervals_are_students(run):
    f = facts.read(run)
    assert (f.interval[1] - f.interval[0]) / 2 == pytest.approx(4.302653 * f.se)  # two degrees of freedom
    assert len(f.populations) == K and f.populations[2].log_evidence == run.replicas[2].log_evidence


def test_a_chart_has_a_line_for_each(run):
    figure = plots.plot_trace(run, ["ess"])
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert len(lines) == K
    assert all((np.diff(line.get_xdata()) > 0).all() for line in lines)


def test_arviz_takes_populations_for_chains(run):
    tree = run.to_arviz()
    assert tree["posterior"]["theta"].shape == (K, 64, 3) and tree["sample_stats"]["weight"].shape == (K, 64)
    assert np.array_equal(tree["posterior"]["theta"][1], run.replicas[1].view["theta"])
    assert float(tree["sample_stats"]["weight"].sum()) == pytest.approx(1)
    assert sorted(set(tree["trace"]["replica"].values.tolist())) == [0, 1, 2]
    even = run.to_arviz(resampled=True)
    assert np.array_equal(even["posterior"]["theta"][2], run.replicas[2].draws(64)["theta"])


def test_a_table_of_draws_says_which(run):
    found = run.to_dataframe()
    assert len(found) == K * 64 and next(iter(found.columns)) == "replica"
    part = found[found["replica"] == 1]
    assert np.array_equal(part["theta[0]"].to_numpy(), run.replicas[1].view["theta"][:, 0].numpy())
    assert "replica" not in run.replicas[0].to_dataframe().columns


def test_the_table_has_one_line(run):
    assert len(table(run).splitlines()) == 3 and " 192 " in table(run)


def test_texts_and_draws_are_those_of_all():
    words = made.run(made.Words(), 16, replicas=K)
    assert len(words.texts) == 16 * K and render(words)
    share = sum(t == words.texts[0] for t in words.draws(100)) / 100
    weight = float(words.weight[torch.tensor([t == words.texts[0] for t in words.texts])].sum())
    assert abs(share - weight) < 4.9 * math.sqrt(0.25 / 100)
