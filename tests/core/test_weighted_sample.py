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
from motes.core.history.genealogy import Anchor, Genealogy
from motes.errors import AllWeightsZero, MotesError, NanLogPotential, ShapeError, WrongType

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
    assert draws.jackknife(lambda w: w @ value).freedom == pytest.approx(draws.mean(value).freedom)
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


def older_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: only the older families are looked at."""
    both = WeightedSample._kinships
    monkeypatch.setattr(WeightedSample, "_kinships", lambda draws: both(draws)[:1])


@pytest.mark.parametrize("seed", [0, 2, 21, 24])
def test_of_older_and_younger_families_those_count_that_see_more(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that is resampled at each step: in two of these runs the older families see .76 and .81 of the error."""
    run = sample(Walk(data(12)), 200, seed=seed, ess_threshold=1.0, progress=False)
    value, draws, mean = run.values(None), run.weighted_sample, run.mean()
    found, se = draws.jackknife(lambda w: w @ value), float(mean.se)
    assert found.se == pytest.approx(se, rel=1e-9) and found.freedom == pytest.approx(mean.freedom)
    assert draws.bootstrap(Rng(0), lambda w: w @ value, 2000).se == pytest.approx(se, rel=0.08)
    both = draws.multipliers(Rng(0), torch.stack([value, value.square()], 1), 4000).std(0)
    assert both.tolist() == [pytest.approx(se, rel=0.05), pytest.approx(float(draws.mean(value.square()).se), rel=0.05)]
    if seed > 20:
        older_alone(monkeypatch)
        assert draws.jackknife(lambda w: w @ value).se < 0.83 * se
        assert draws.bootstrap(Rng(0), lambda w: w @ value, 2000).se < 0.87 * se


def test_families_that_are_all_alike_hide_nothing_of_the_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight older families, each with as many of either sign: they alone say that nothing varies."""
    n = 64
    anchors = [Anchor(0, (torch.arange(n) // 8).int(), 1 / 8), Anchor.here(10, n)]
    born = Genealogy(n, generation=12, anchors=anchors)
    draws = WeightedSample(torch.zeros(n, dtype=torch.float64), genealogy=born)
    value = 1.0 - 2.0 * (torch.arange(n) % 2).double()
    se = 1 / math.sqrt(n - 1)
    mean, jackknife = draws.mean(value), draws.jackknife(lambda w: w @ value)
    delta, drawn = draws.estimate(0.0, value), draws.bootstrap(Rng(0), lambda w: w @ value, 2000)
    assert [float(mean.se), jackknife.se, delta.se] == [pytest.approx(se)] * 3
    assert drawn.se == pytest.approx(se, rel=0.08)
    assert [e.freedom for e in (mean, jackknife, delta, drawn)] == [pytest.approx(7)] * 4
    assert float(draws.multipliers(Rng(0), value[:, None], 4000).std()) == pytest.approx(se, rel=0.05)
    older_alone(monkeypatch)
    assert "same for all" in draws.jackknife(lambda w: w @ value).reason


def test_what_no_weights_change_has_a_reason() -> None:
    """A sum of weights is 1 whatever they are; a value that is infinite for some has no spread either."""
    draws, value = uneven()
    for constant in (
        draws.jackknife(lambda w: 3 * w.sum(1)),
        draws.bootstrap(Rng(0), lambda w: 3 * w.sum(1)),
        draws.estimate(3.0, torch.ones(N)),
    ):
        assert constant.value == pytest.approx(3) and math.isnan(constant.se) and constant.freedom == math.inf
        assert "the same for all draws" in constant.reason
    never = draws.jackknife(lambda w: torch.where(w[:, 0] == 0, math.inf, w @ value))
    assert math.isnan(never.se) and "infinite" in never.reason and math.isfinite(never.value)


def test_estimates_carry_degrees_of_freedom() -> None:
    """Those of the mean for what is a mean; for an event that one of 64 has met about two and not 63."""
    draws = WeightedSample(torch.zeros(N, dtype=torch.float64))
    event = torch.zeros(N, dtype=torch.float64)
    event[5] = 1
    told = draws.mean(event).freedom
    assert told == pytest.approx(2, abs=0.2)
    found = [draws.estimate(1 / N, event), draws.jackknife(lambda w: w @ event)]
    assert [e.freedom for e in found] == [pytest.approx(told)] * 2
    assert draws.bootstrap(Rng(0), lambda w: w @ event).freedom == pytest.approx(N - 1)


EVEN = torch.zeros(12, dtype=torch.float64)


@pytest.mark.parametrize(
    "make, error, what",
    [
        (lambda: WeightedSample([0.0] * 12), WrongType, "must be a float64 tensor"),
        (lambda: WeightedSample(EVEN.float()), ShapeError, "float64"),
        (lambda: WeightedSample(EVEN[:, None]), ShapeError, r"\(12, 1\)"),
        (lambda: WeightedSample(EVEN[:0]), ShapeError, "N >= 1"),
        (lambda: WeightedSample(EVEN.log() * 0), NanLogPotential, "draws: the log-weight is NaN"),
        (lambda: WeightedSample(EVEN, genealogy=Genealogy.start(13)), ShapeError, "genealogy of 13"),
        (lambda: WeightedSample(EVEN, chains=5), ShapeError, "not 5 chains of equal length"),
        (lambda: WeightedSample(EVEN, chains=2.0), WrongType, "whole number"),
        (lambda: WeightedSample(EVEN, chains=-2), WrongType, "whole number"),
        (lambda: WeightedSample(EVEN.cumsum(0) + torch.arange(12), chains=3), MotesError, "the same weight"),
        (lambda: WeightedSample(EVEN).mean(EVEN[1:]), ShapeError, r"\(12, ...\), not \(11,\)"),
        (lambda: WeightedSample(EVEN).estimate(0.0, 1.0), ShapeError, "not float"),
        (lambda: WeightedSample(EVEN).multipliers(Rng(0), EVEN), ShapeError, "a column a value"),
        (lambda: WeightedSample(EVEN).bootstrap(Rng(0), lambda w: w @ EVEN, 1), MotesError, "at least 2"),
        (lambda: WeightedSample(EVEN.log()).mean(EVEN), AllWeightsZero, "all 12 weights are zero"),
        (lambda: WeightedSample(EVEN.log()).jackknife(lambda w: w @ EVEN), AllWeightsZero, "all 12 weights are zero"),
    ],
)
def test_what_is_no_sample_is_refused(make, error: type[MotesError], what: str) -> None:
    with pytest.raises(error, match=what):
        make()


def test_values_of_single_precision_are_taken() -> None:
    draws, value = uneven()
    assert float(draws.mean(value.float()).se) == pytest.approx(float(draws.mean(value).se), rel=1e-5)
