"""Weighted samples: errors of means, of what is no mean, and of several numbers together; by families and chains."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.toys import Walk, data
from motes import Rng, sample
from motes.core import WeightedSample
from motes.core.history.genealogy import Genealogy
from motes.errors import MotesError

N, COPIES = 64, 4


def copied(seed: int = 0) -> tuple[WeightedSample, Tensor]:
    """N independent normal numbers, each of them `COPIES` times as after a resampling; and the numbers."""
    ancestor = torch.arange(N).repeat_interleave(COPIES)
    even = torch.zeros(len(ancestor), dtype=torch.float64)
    born = Genealogy.start(len(even)).after(1, ancestor, True, even)
    value = Rng(seed).at("value").normal((N,), dtype=torch.float64)
    return WeightedSample(even, genealogy=born), value[ancestor]


def uneven(seed: int = 0) -> tuple[WeightedSample, Tensor]:
    """Independent normal numbers with weights that differ."""
    rng = Rng(seed)
    log_weight = 0.5 * rng.at("weight").normal((N,), dtype=torch.float64)
    return WeightedSample(log_weight), rng.at("value").normal((N,), dtype=torch.float64)


def test_copies_count_as_one() -> None:
    """The error is that of the distinct numbers; a sample that knows no families says half of it."""
    draws, value = copied()
    right = float(value[::COPIES].std()) / math.sqrt(N)
    assert draws.families == pytest.approx(N) and draws.ess == pytest.approx(N * COPIES)
    alone = WeightedSample(draws.log_weight)
    for found, wrong in zip(every_error(draws, value), every_error(alone, value), strict=True):
        assert found == pytest.approx(right, rel=0.15) and wrong < 0.6 * right


def every_error(draws: WeightedSample, value: Tensor) -> list[float]:
    """The standard error of a mean by each of the ways that there are."""
    many = draws.multipliers(Rng(1), value[:, None], 2000)
    return [
        float(draws.mean(value).se),
        draws.estimate(float(draws.weight @ value), value).se,
        draws.jackknife(lambda w: w @ value).se,
        draws.bootstrap(Rng(0), lambda w: w @ value, 2000).se,
        float(many.std()),
    ]


@pytest.mark.parametrize("drawn", [copied, uneven])
def test_jackknife_of_a_mean_is_the_mean(drawn) -> None:
    draws, value = drawn()
    found = draws.jackknife(lambda w: w @ value)
    assert found.value == pytest.approx(float(draws.weight @ value), abs=1e-12)
    assert found.se == pytest.approx(float(draws.mean(value).se), rel=1e-9)


def test_jackknife_takes_the_bias_away() -> None:
    """The plain variance is low by 1 / n; leaving out families mends that, leaving out copies does not."""
    draws, value = copied()
    unbiased = float(value[::COPIES].var())

    def variance(w: Tensor) -> Tensor:
        return w @ value.square() - (w @ value).square()

    assert draws.jackknife(variance).value == pytest.approx(unbiased, rel=1e-9)
    assert WeightedSample(draws.log_weight).jackknife(variance).value < unbiased * (1 - 0.5 / N)


def test_errors_go_together() -> None:
    """A number and its negative are off by the same; errors drawn for each alone would not be."""
    draws, value = uneven()
    both = torch.stack([value, -value], 1)
    together = draws.multipliers(Rng(0), both, 50)
    assert torch.allclose(together.sum(1), torch.zeros(50, dtype=torch.float64), atol=1e-12)
    alone = torch.cat([draws.multipliers(Rng(k), both[:, k : k + 1], 50) for k in (0, 1)], 1)
    assert float(alone.sum(1).abs().max()) > 0.1


def test_chains_are_taken_whole() -> None:
    """Draws of a chain are alike: chains that stand still are as many draws as there are chains."""
    still = Rng(0).normal((20,), dtype=torch.float64)
    draws, value = WeightedSample.of_chains(20, 10), still.repeat_interleave(10)
    right = float(still.std()) / math.sqrt(20)
    assert draws.mean(value).method == "batch means" and draws.jackknife(lambda w: w @ value).method == "jackknife"
    found = [draws.jackknife(lambda w: w @ value).se, float(draws.multipliers(Rng(0), value[:, None], 4000).std())]
    assert found == [pytest.approx(right, rel=0.05)] * 2
    wrong = WeightedSample(draws.log_weight).jackknife(lambda w: w @ value).se
    assert wrong < 0.4 * right
    few = WeightedSample.of_chains(4, 50).bootstrap(Rng(0), lambda w: w.sum(1))
    assert math.isnan(few.se) and "4 chains are too few" in few.reason


def test_a_run_hands_out_its_sample() -> None:
    run = sample(Walk(data(12)), 128, seed=0, progress=False)
    value = run.values(None)
    draws = run.weighted_sample
    assert draws.mean(value) == run.mean() and draws.families == pytest.approx(run.families)
    assert 0 < float(draws.mean(value).se) != float(WeightedSample(run.log_weight).mean(value).se)
    doubted = replace(draws, doubt="not settled")
    assert math.isnan(float(doubted.mean(value).se)) and doubted.jackknife(lambda w: w @ value).reason == "not settled"
    with pytest.raises(MotesError, match="not settled"):
        doubted.multipliers(Rng(0), value[:, None])


def test_one_family_is_not_left_out() -> None:
    draws = WeightedSample(torch.tensor([0.0, *[-800.0] * 30], dtype=torch.float64))
    found = draws.jackknife(lambda w: w.square().sum(1))
    assert math.isnan(found.se) and found.reason and found.value == 1
