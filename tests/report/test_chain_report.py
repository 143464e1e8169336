"""Chains in the report, the table and ArviZ."""

import numpy as np
import pytest
import torch
from torch.distributions import Beta

import motes
from motes.core.remark import Remark
from motes.core.run import Run
from motes.report.html import render
from motes.report.table import table

ONE = torch.ones((), dtype=torch.float64)


@pytest.fixture(scope="module")
def run() -> Run:
    density = motes.Density(lambda v: 9 * v["p"].log() + 31 * (-v["p"]).log1p(), {"p": Beta(2 * ONE, 3 * ONE)})
    return motes.sample(motes.Chains(density, draws=100), 32, seed=1, progress=False)


def test_the_page_shows_chains_and_no_evidence(run: Run) -> None:
    page = render(run)
    least = run.diagnose().least
    assert f"{round(min(least.ess_bulk, least.ess_tail)):,}" in page
    assert "32 chains of 100 draws" in page and "4 of 32 chains" in page and "Effective sample sizes and R-hat" in page
    assert "log evidence" not in page and "NaN" not in page and ">nan<" not in page
    both = render([run, run])
    assert "effective draws at least" in both and "Do the runs" not in both


def test_one_chain_is_not_several() -> None:
    density = motes.Density(lambda v: -(v["a"] ** 2), {"a": torch.distributions.Normal(0.0, 1.0)})
    one = motes.sample(motes.Chains(density, draws=40, warmup=20), 1, seed=1, progress=False)
    assert "1 chain of 40 draws" in render(one) and str(one.diagnose()).startswith("1 chain of 40 draws")


def test_the_page_says_what_the_sampler_said(run: Run) -> None:
    from dataclasses import replace

    page = render(replace(run, remarks=(Remark("chain [3] of 32 never moved"),)))
    assert "Chain [3] of 32 never moved." in page


def test_the_table_has_the_smallest_effective_sample_size(run: Run) -> None:
    least = run.diagnose().least
    line = table(run).splitlines()[-1]
    assert f"{round(min(least.ess_bulk, least.ess_tail)):,}" in line and "±" not in line


def test_arviz_gets_chains_as_chains(run: Run) -> None:
    tree = run.to_arviz()
    assert tree["posterior"]["p"].shape == (32, 100)
    assert np.array_equal(tree["posterior"]["p"].values, run.view["p"].numpy())
    assert "sample_stats" not in tree.children
