"""The public figures."""

import dataclasses
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from motes.core.trace import Trace
from motes.report import plots
from motes.report.facts import read
from motes.report.style import PAPER, blank, styled
from report import made


@pytest.fixture(scope="module")
def run():
    return made.run(made.Tempered())


def test_every_figure_comes_for_every_run(run):
    before = dict(matplotlib.rcParams)
    runs = [run, made.run(made.Blobs(), 8), dataclasses.replace(made.run(made.Words(1), 1), trace=Trace())]
    for r in runs:
        for plot in (plots.plot_trace, plots.plot_genealogy, plots.plot_marginals, plots.plot_images):
            assert isinstance(plot(r), Figure)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_figure_is_a_file(run, tmp_path):
    plots.plot_marginals(run, ["theta[1]"]).savefig(tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_unknown_names_are_refused_with_those_that_exist(run):
    with pytest.raises(KeyError, match=r"theta\[0\]"):
        plots.plot_marginals(run, ["nothing"])


def test_the_histogram_holds_the_weight():
    run = made.run(made.Tempered(), 500)
    f = read(run)
    with styled(PAPER):
        ax = blank(200, 100, PAPER).subplots()
        plots.draw_marginal(ax, f.summaries[0], f.weight, f.ess, PAPER)
    heights, edges, _ = ax.patches[0].get_data()
    inside = (f.summaries[0].column.values >= edges[0]) & (f.summaries[0].column.values <= edges[-1])
    assert heights.sum() == pytest.approx(f.weight[inside].sum())
    assert heights.sum() > 0.99


def test_summaries_are_those_of_the_run():
    run = made.run(made.Tempered(), 300)
    f, estimate = read(run), run.mean("theta")
    assert [s.mean for s in f.summaries] == pytest.approx(estimate.value.tolist(), rel=1e-12)
    assert [s.se for s in f.summaries] == pytest.approx(estimate.se.tolist(), rel=1e-12)
    x, w = run.view["theta"], run.weight[:, None]
    sd = ((w * (x - (w * x).sum(0)).square()).sum(0)).sqrt()
    assert [s.sd for s in f.summaries] == pytest.approx(sd.tolist(), rel=1e-12)


def test_thinning_keeps_ends_and_extremes():
    y = np.zeros(100_000)
    y[54_321], y[77] = -3, 5
    x, kept = plots._thin(np.arange(100_000.0), y)
    assert len(x) <= 700 and x[0] == 0 and x[-1] == 99_999
    assert kept.min() == -3 and kept.max() == 5
    assert x[kept.argmin()] == 54_321
