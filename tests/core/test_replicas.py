"""Independent populations: each as if alone, evidence without bias, bars that cover, and a word where they disagree."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from core.toys import Walk, data
from motes.core.joined import SHARE, joined
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.remark import EVIDENCE, Remark
from motes.core.result import Result
from motes.errors import AllWeightsZero, MotesError, MotesWarning, NanLogPotential

K = 6


def sampled(model=None, n=32, seed=11, k=K, **knobs):
    return motes.sample(model or Walk(data(7)), n, seed=seed, replicas=k, progress=False, **knobs)


def same(a, b) -> None:
    """Two runs hold the same bits (times apart)."""
    assert torch.equal(a.log_weight, b.log_weight) and torch.equal(a.view, b.view)
    assert torch.equal(a.particles.root, b.particles.root) and a.result is b.result and a.setup == b.setup
    assert repr(a) == repr(b) and repr(a.mean()) == repr(b.mean()) and a.remarks == b.remarks
    assert {k: v.tobytes() for k, v in a.trace.items() if k != "seconds"} == {
        k: v.tobytes() for k, v in b.trace.items() if k != "seconds"
    }
    assert len(a.replicas) == len(b.replicas)
    for one, other in zip(a.replicas, b.replicas, strict=True):
        same(one, other)


# ------------------------------------------------------------------------------------------------ each as if alone


def test_each_population_is_what_it_is_alone():
    run = sampled()
    assert len({part.seed for part in run.replicas}) == K and run.replicas[0].seed == run.seed == 11
    for part in run.replicas:
        same(part, motes.sample(Walk(data(7)), 32, seed=part.seed, progress=False))
    assert [part.seed for part in sampled(k=3).replicas] == [part.seed for part in run.replicas[:3]]


def test_one_population_is_a_run_without_replicas():
    run = motes.sample(Walk(data(7)), 32, seed=11, progress=False, replicas=1)
    same(run, motes.sample(Walk(data(7)), 32, seed=11, progress=False))
    assert run.replicas == () and "replicas" not in run.setup


def test_an_rng_has_replicas_too():
    run = sampled(seed=motes.Rng(11))
    same(run.replicas[2], motes.sample(Walk(data(7)), 32, seed=motes.Rng(11).replica(2), progress=False))
    assert torch.equal(run.log_weight, sampled().log_weight) and run.seed is None


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_what_is_no_number_of_replicas_is_refused(k, error):
    with pytest.raises(error, match="replicas"):
        sampled(k=k)


# ------------------------------------------------------------------------------------------------ all together


class Lognormal(FeynmanKac):
    """Z_hat = exp(s g - s^2 / 2) in a population, with E = 1; the mean of x is g too."""

    def __init__(self, s: float):
        self.s = s

    def init(self, rng, n):
        g = rng.at("g").normal(())
        x = g + rng.at("x").normal((n,))
        return Particles.start(x, torch.full((n,), self.s * float(g) - self.s**2 / 2, dtype=torch.float64))

    def step(self, rng, particles):
        raise AssertionError("there is none")

    def done(self, particles):
        return True


def test_the_evidence_is_the_mean_and_means_go_by_evidence():
    run = sampled()
    each = torch.tensor([part.log_evidence for part in run.replicas], dtype=torch.float64)
    assert run.log_evidence == pytest.approx(float(each.logsumexp(0)) - math.log(K), abs=1e-12)
    share = each.softmax(0)
    pooled = sum(float(s) * float(part.mean()) for s, part in zip(share, run.replicas, strict=True))
    assert float(run.mean()) == pytest.approx(pooled, abs=1e-12)
    assert run.n == 32 * K and len(run.view) == len(run.weight) == 32 * K
    assert run.standard_error.freedom == run.mean().freedom == K - 1
    assert run.interval()[1] - run.log_evidence == pytest.approx(2.5706 * run.log_evidence_se, rel=1e-4)  # t, 5 degrees


def test_equal_evidences_give_the_plain_standard_error_of_a_mean():
    parts = sampled(Lognormal(1e-9)).replicas
    means = torch.stack([part.mean().value for part in parts])
    found = sampled(Lognormal(1e-9)).mean()
    assert float(found.se) == pytest.approx(float(means.std()) / math.sqrt(K), rel=1e-6)


def covered(s: float, k: int, runs: int, level: float = 0.95) -> tuple[float, float]:
    """Shares of the intervals that cover log 1 = 0, where there is one, and of runs that have one."""
    found = [sampled(Lognormal(s), n=2, seed=seed, k=k).interval(level) for seed in range(runs)]
    bars = [low <= 0 <= high for low, high in found if not math.isnan(low)]
    return sum(bars) / max(1, len(bars)), len(bars) / runs


@pytest.mark.parametrize(("s", "k", "runs"), [(0.1, 2, 200), (0.5, 4, 100), (0.7, 8, 100)])
def test_intervals_by_students_t_cover(s, k, runs):
    share, told = covered(s, k, runs)
    assert told > 0.85
    assert abs(share - 0.94) < 4.9 * math.sqrt(0.95 * 0.05 / (runs * told)) + 0.01


def test_the_normal_law_in_its_place_does_not():
    """The broken twin: 1.96 standard errors of two populations cover 70 %."""
    found = [sampled(Lognormal(0.1), n=2, seed=seed, k=2) for seed in range(200)]
    share = sum(abs(run.log_evidence) < 1.96 * run.log_evidence_se for run in found) / 200
    assert share < 0.95 - 4.9 * math.sqrt(0.95 * 0.05 / 200)


def test_an_estimate_that_rests_on_few_populations_has_no_bar():
    run = sampled(Lognormal(4.0), k=8)
    assert math.isnan(run.log_evidence_se) and "nats" in run.standard_error.reason
    assert "rests on" in str(run.mean().reason) and math.isnan(float(run.mean().se))


def test_a_quantity_that_is_always_the_same_has_no_bar_by_its_spread():
    run = sampled(Lognormal(0.0))
    assert run.log_evidence_se == 0.0  # each population knows it exactly
    assert "the same in all populations" in run.mean(lambda x: 0 * x + 2).reason


def test_populations_of_different_sizes_count_the_same():
    parts = [motes.sample(Walk(data(7)), n, seed=1, progress=False) for n in (16, 64)]
    run = joined(parts, {**parts[0].setup, "replicas": 2}, Result.OK)
    each = torch.tensor([part.log_evidence for part in parts], dtype=torch.float64)
    assert run.log_evidence == pytest.approx(float(each.logsumexp(0)) - math.log(2), abs=1e-12)
    share = each.softmax(0)
    assert float(run.mean()) == pytest.approx(sum(float(s * p.mean().value) for s, p in zip(share, parts, strict=True)))


# ------------------------------------------------------------------------------------------------ whether they agree


class Modes(FeynmanKac):
    """A population meets a second mode (at 8, with 0.7 of the evidence) with probability `chance`, and never leaves."""

    def __init__(self, chance: float):
        self.chance = chance

    def init(self, rng, n):
        x = rng.at("x").normal((n,))
        if float(rng.at("met").uniform(())) < self.chance:
            x[0::2] += 8
        return Particles.start(x, torch.where(x > 4, math.log(0.7 / 0.15), 0.0) + 0.1 * x.frac())

    def step(self, rng, particles):
        raise AssertionError("there is none")

    def done(self, particles):
        return True


def test_a_mode_that_some_populations_met_is_remarked_on():
    with pytest.warns(MotesWarning, match="populations disagree by more than they state"):
        run = sampled(Modes(0.5), n=200)
    assert run.doubts == {"evidence", "means"}
    assert (
        math.isnan(run.log_evidence_se) and "disagree" in run.standard_error.reason and "disagree" in run.mean().reason
    )
    assert len({part.log_evidence > 0.5 for part in run.replicas}) == 2


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_what_all_met_or_none_did_is_not(chance):
    assert sampled(Modes(chance), n=200).remarks == ()


def test_healthy_populations_agree():
    """At most 5 % of 60 runs may be remarked on; the alarm is set at .1 % of exact bars, with an allowance."""
    said = sum(bool(sampled(n=100, seed=seed, k=8).remarks) for seed in range(60))
    assert said <= 3


class Talking(Walk):
    """Population by population, some say something."""

    def remarks(self, particles):
        said = [f"only {float(particles.x[0]):.3f} of it", "all say this"]
        if float(particles.x[0]) > 2.5:
            said.append(Remark("some doubt it", EVIDENCE, withholds=True))
        return said


def test_remarks_are_told_once_and_doubt_what_a_third_of_the_evidence_doubts():
    with pytest.warns(MotesWarning):
        run = sampled(Talking(data(7)), k=12)
    who = [part for part in run.replicas if "evidence" in part.doubts]
    assert 0 < len(who) < 12
    texts = [str(r) for r in run.remarks]
    assert texts[0].startswith("12 of 12 populations: only ") and texts[0].endswith("(this is population 0)")
    assert texts[1] == "all say this"
    assert texts[2] == f"{len(who)} of 12 populations: some doubt it"
    share = sum(math.exp(p.log_evidence) for p in who) / sum(math.exp(p.log_evidence) for p in run.replicas)
    assert run.remarks[2].withholds == (share > SHARE) == math.isnan(run.log_evidence_se)


# ------------------------------------------------------------------------------------------------ ends that are no ends


class Fragile(Walk):
    """Dies, or has a NaN, in populations whose first particle starts below zero."""

    fault = -math.inf

    def step(self, rng, particles):
        new = super().step(rng, particles)
        marked = particles.x if particles.t == 0 else particles.shared["first"]
        bad = float(marked.reshape(-1)[0]) < 0 and new.t == 3
        weight = new.log_weight + self.fault if bad else new.log_weight
        return Particles(new.x, weight, new.ancestor, new.root, new.t, {"first": marked.reshape(-1)[:1].clone()})


def test_a_population_that_dies_counts_as_evidence_zero():
    run = sampled(Fragile(data(7)))
    dead = [part.result is Result.ALL_WEIGHTS_ZERO for part in run.replicas]
    assert 0 < sum(dead) < K and run.result is Result.OK
    alive = [math.exp(part.log_evidence) for part, d in zip(run.replicas, dead, strict=True) if not d]
    assert math.exp(run.log_evidence) == pytest.approx(sum(alive) / K)
    assert f"{sum(dead)} of {K} populations have evidence 0" in run.standard_error.reason


def test_where_all_die_the_run_does(tmp_path):
    class Doomed(Walk):
        def step(self, rng, particles):
            return particles.step(particles.x, torch.full_like(particles.log_weight, -math.inf))

    with pytest.raises(AllWeightsZero) as caught:
        sampled(Doomed(data(7)))
    assert len(caught.value.run.replicas) == K
    assert sampled(Doomed(data(7)), throw=False).result is Result.ALL_WEIGHTS_ZERO


def test_a_nan_ends_the_run_at_once():
    class Wrong(Fragile):
        fault = math.nan

    with pytest.raises(NanLogPotential) as caught:
        sampled(Wrong(data(7)))
    run = caught.value.run
    assert run.result is Result.NAN_LOG_POTENTIAL and len(run.replicas) <= K
    assert run.replicas[-1].result is Result.NAN_LOG_POTENTIAL


def test_a_callback_sees_which_population_and_can_stop_the_run():
    seen = []

    def callback(state):
        seen.append((state.replica, state.particles.t))
        return (state.replica, state.particles.t) == (2, 3)

    run = sampled(callback=callback)
    assert seen == [(j, t) for j in range(2) for t in range(7)] + [(2, t) for t in range(4)]
    assert run.result is Result.INTERRUPTED and [p.result.value for p in run.replicas] == ["OK", "OK", "INTERRUPTED"]
    assert run.n == 2 * 32  # estimates are of those that have ended
    assert run.log_evidence == pytest.approx(sampled(k=2).log_evidence)


def test_unfinished_populations_have_no_bar():
    run = sampled(max_steps=3)
    assert run.result is Result.MAX_STEPS and all(part.particles.t == 3 for part in run.replicas)
    assert "not come to their end" in run.standard_error.reason and "not come to" in run.mean().reason


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("stop", [0, 3, 6, 7, 17, 41])
def test_resume_from_any_place(tmp_path, stop):
    whole, count = sampled(), iter(range(1000))
    file = tmp_path / "run"
    part = sampled(callback=lambda _: next(count) == stop, checkpoint=file)
    assert part.result is (Result.OK if stop == 41 else Result.INTERRUPTED)
    assert len(part.replicas) == stop // 7 + 1
    same(motes.load(file), part)
    same(motes.resume(file, Walk(data(7)), progress=False), whole)
    same(motes.load(file), whole)
    assert motes.resume(file, Walk(data(7)), progress=False).result is Result.OK


def test_checkpoints_on_the_way_hold_all_populations(tmp_path):
    file, kept = tmp_path / "run", []

    def callback(state):
        if state.replica or state.particles.t > 1:
            kept.append([(p.particles.t, p.result.value) for p in motes.load(file).replicas])

    sampled(k=3, checkpoint=motes.Checkpoint(file, every=0), callback=callback)
    assert kept[0] == [(0, "INTERRUPTED")] or kept[0] == [(1, "INTERRUPTED")]
    assert kept[-1] == [(6, "OK"), (6, "OK"), (5, "INTERRUPTED")]


def test_what_looks_into_one_population_says_so():
    run = sampled()
    with pytest.raises(MotesError, match=r"one of run\.replicas"):
        run.alone("freeze")
    assert run.replicas[0].alone("freeze") is run.replicas[0]


def test_the_trace_goes_by_population():
    run = sampled()
    for j, part in enumerate(run.replicas):
        assert run.trace["ess"][run.trace["replica"] == j].tolist() == part.trace["ess"].tolist()
    assert run.seconds == pytest.approx(sum(part.seconds for part in run.replicas))
