"""The shelf of benchmarks/trust: a slice of its rows, and what counts as a lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.trust import judge, peers, plan, record, runner, table, targets
from benchmarks.trust.peers.problem import Problem
from benchmarks.trust.target import Target, Truth, model
from benchmarks.trust.targets import coin
from scipy.stats import ks_2samp, multivariate_t, norm

import motes
from motes.core.remark import ALL, EVIDENCE, MEANS, Remark

KNOWN = targets.load()
EASY = [(name, sampler) for name in ("coin",) for sampler in ("Tempering", "AMIS")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trust")


@pytest.mark.parametrize(("name", "sampler"), EASY)
def test_no_run_lies_on_easy_targets(name: str, sampler: str, folder) -> None:
    """Eight runs with a bar each, no remark, no miss; intervals a fiftieth as long miss (the broken twin)."""
    row = runner.row(KNOWN[name], sampler, 256, 8, folder=folder)
    verdict = judge.judge(row, KNOWN[name])
    assert verdict.raised == verdict.silent == verdict.remarked == 0
    assert set(verdict.bars.values()) == {1.0}
    assert not any(c.wrong for c in verdict.coverage.values())
    liar = [
        {**r, "se": r["se"] / 50, "means": {k: [v[0], v[1] / 50] for k, v in r["means"].items()}} for r in row["runs"]
    ]
    assert judge.judge({**row, "runs": liar}, KNOWN[name]).silent > 4


@dataclass(frozen=True)
class Talkative(motes.Tempering):
    """Tempering that says what it is told to."""

    says: tuple[str, ...] = ()

    def remarks(self, particles: Any) -> tuple[str, ...]:
        return self.says


def other_coin(*says: str) -> Target:
    """The coin by a sampler that runs another one: twice the throws. Its bars are small and its answers wrong."""
    wrong = motes.Density(lambda v: 18 * v["p"].log() + 2 * (-v["p"]).log1p(), coin.prior(), vectorised=True)
    return replace(KNOWN["coin"], samplers={"Liar": model(lambda: Talkative(wrong, says=says))})


@pytest.mark.parametrize(
    ("says", "silent"),
    [
        ((), True),
        (("all is well",), True),
        ((Remark("doubtful", EVIDENCE),), True),  # the means are wrong too
        ((Remark("doubtful", MEANS),), True),
        ((Remark("doubtful", ALL),), False),
        ((Remark("doubtful", EVIDENCE), Remark("doubtful", MEANS)), False),
        ((Remark("no bars", ALL, withholds=True),), False),
    ],
)
def test_a_sampler_that_lies_is_counted_and_one_that_says_so_is_not(says, silent: bool, tmp_path) -> None:
    target = other_coin(*says)
    row = runner.row(target, "Liar", 256, 2, folder=tmp_path)
    verdict = judge.judge(row, target)
    assert verdict.silent == (2 if silent else 0)
    assert verdict.remarked == (2 if says else 0)
    assert verdict.bars["evidence"] == (0.0 if says and says[0].startswith("no bars") else 1.0)
    text = table.write({"coin": target}, tmp_path)
    assert ("**2" in text) == silent


def test_the_level_is_that_of_four_normal_deviations_and_of_student_where_few() -> None:
    assert judge.deviations(judge.MISS, math.inf) == pytest.approx(4, abs=1e-9)
    assert judge.deviations(judge.MISS, 7) == pytest.approx(8.5, abs=0.5)
    truth, one = Truth(0.0), {"log_evidence": 5.0, "se": 1.0, "means": {}}
    assert [c.silent_miss for c in judge.claims(one, truth)] == [True]
    assert [c.silent_miss for c in judge.claims({**one, "freedom": 7.0}, truth)] == [False]
    assert [c.silent_miss for c in judge.claims({**one, "log_evidence": 3.9}, truth)] == [False]
    assert [c.silent_miss for c in judge.claims({**one, "se": None}, truth)] == [False]
    assert [c.silent_miss for c in judge.claims({**one, "error": "it broke"}, truth)] == []
    assert [c.silent_miss for c in judge.claims({**one, "log_evidence": None}, Truth(math.nan))] == []
    assert [c.silent_miss for c in judge.claims(one, Truth(math.inf))] == [True]
    assert [c.silent_miss for c in judge.claims({**one, "log_evidence": "inf"}, truth)] == [True]


def test_an_inexact_truth_is_judged_with_its_own_error() -> None:
    """Five of the run's errors off, and less than three of both; an exact truth (the twin) finds a miss in both."""
    run = {"log_evidence": 5.0, "se": 1.0, "means": {"a": [5.0, 1.0]}}
    rough = Truth(0.0, {"a": 0.0}, errors={"evidence": 1.5, "a": 1.5})
    assert [c.silent_miss for c in judge.claims(run, rough)] == [False, False]
    assert [c.silent_miss for c in judge.claims(run, Truth(0.0, {"a": 0.0}))] == [True, True]


def test_where_the_answer_is_a_refusal_the_word_must_be_said() -> None:
    target = replace(KNOWN["coin"], word="improper", truth=lambda: Truth(math.inf))
    run = {"log_evidence": 5.0, "se": None, "means": {}}
    assert judge.silent(run, target, target.truth())
    assert not judge.silent({**run, "remarks": [["the posterior is Improper", ["evidence"]]]}, target, target.truth())
    assert not judge.silent({"error": "MotesError: improper posterior"}, target, target.truth())


def test_a_mode_that_no_particle_met_is_counted_apart() -> None:
    lost = {"seed": 0, "log_evidence": -1.6, "se": 0.1, "means": {"right": [0.0, None]}, "met": {"left": 9, "right": 0}}
    lost |= {"evaluations": 9.0, "cpu": 1.0}
    kept = {**lost, "met": {"left": 9, "right": 1}}
    verdict = judge.judge({"runs": [lost, kept]}, KNOWN["two-modes"])
    assert (verdict.silent, verdict.unmet, verdict.met) == (2, 1, 0.5)


def test_binomial_intervals_are_exact() -> None:
    """Clopper & Pearson: at its lower end, k or more successes of n have half of the level that is left."""
    for k, n in ((0, 40), (31, 40), (38, 40), (40, 40)):
        low, high = judge.binomial(k, n)
        above = sum(math.comb(n, j) * low**j * (1 - low) ** (n - j) for j in range(k, n + 1))
        below = sum(math.comb(n, j) * high**j * (1 - high) ** (n - j) for j in range(k + 1))
        assert (k == 0 or above == pytest.approx(0.0005)) and (k == n or below == pytest.approx(0.0005))
    assert judge.Coverage(25, 40).wrong and not judge.Coverage(40, 40).wrong and not judge.Coverage(34, 40).wrong


def test_a_row_goes_on_where_it_stopped(tmp_path) -> None:
    target = KNOWN["coin"]
    whole = runner.row(target, "AMIS", 64, 3, folder=tmp_path / "a")
    runner.row(target, "AMIS", 64, 1, folder=tmp_path / "b")
    rest = runner.row(target, "AMIS", 64, 3, folder=tmp_path / "b")

    def without_clock(row):
        return [{k: v for k, v in r.items() if k != "cpu"} for r in row["runs"]]

    assert without_clock(rest) == without_clock(whole) and len(rest["runs"]) == 3
    assert record.read(record.path("coin", "AMIS", 64, tmp_path / "b")) == rest
    assert runner.row(target, "AMIS", 64, 9, folder=tmp_path / "b", until=0.0)["runs"] == rest["runs"]
    assert len(runner.row(target, "AMIS", 64, 9, folder=tmp_path / "b", budget=1e-9)["runs"]) == 4


def test_an_error_is_kept_and_a_run_that_takes_too_long_is_stopped(tmp_path) -> None:
    def broken() -> motes.Tempering:
        raise motes.MotesError("nothing works")

    target = replace(KNOWN["coin"], samplers={**KNOWN["coin"].samplers, "Broken": model(broken)})
    run = runner.one(target, "Broken", 64, 0)
    assert run["error"] == "MotesError: nothing works" and "log_evidence" not in run
    assert "stopped" in runner.one(target, "Tempering", 64, 0, stop=0.0)["error"]
    assert judge.judge({"runs": [run]}, target).raised == 1


def test_targets_are_complete_and_rows_come_in_order() -> None:
    for target in KNOWN.values():
        if "smollm2" not in target.name:  # whose truth takes the model
            assert target.truth().means.keys() <= target.functions.keys(), target.name
        assert target.samplers and target.name == target.name.lower()
    rows = list(plan.rows(KNOWN))
    assert len({(t.name, s, n) for t, s, n in rows}) == len(rows)
    assert len(rows) == sum(len(t.samplers) * len(t.sizes) for t in KNOWN.values())
    assert {t.name for t, *_ in rows[: len(plan.FIRST)]} >= {n for n in plan.FIRST if n in KNOWN}
    assert any(t.easy for t in KNOWN.values())


def test_evaluations_are_counted_around_the_density() -> None:
    job = coin.TARGETS[0].model("Tempering", 64)
    run = job.run(0)
    traced = float(run.trace["evaluations"].sum()) * 64
    assert 64 < traced <= job.evaluations(run) < traced + 64 * 16  # at the end it looks outwards for an improper law
    assert torch.isfinite(run.log_weight).all()


DRAWN = ("coin", "counts", "line", "hard-wall", "schools-plain", "mixture-2", "many-well-8")


@pytest.mark.parametrize("name", DRAWN)
def test_truths_are_what_draws_from_the_prior_say(name: str) -> None:
    """The truth was computed without the density that is sampled; weighted draws bring them together."""
    law, truth = density_of(KNOWN[name]), KNOWN[name].truth()
    z = law.sample(motes.Rng(3).at("prior"), 60_000)
    state = law.evaluate(z)
    top = state["log_likelihood"].max()
    weight = (state["log_likelihood"] - top).exp()
    mean, n = weight.mean(), len(weight)
    relative = float(weight.std() / mean) / math.sqrt(n)
    assert relative < 0.2
    assert abs(math.log(float(mean)) + float(top) - truth.log_evidence) < 4.9 * relative
    view = law.constrain(z)
    for key, exact in truth.means.items():
        value = values(view, KNOWN[name].functions[key])
        found = (weight * value).sum() / weight.sum()
        se = float((weight * (value - found)).square().sum().sqrt() / weight.sum())
        assert abs(float(found) - exact) < 4.9 * se, key
        assert abs(float(found) - exact - 0.5 * float(value.std())) > 4.9 * se, key  # half of the prior's spread off


def density_of(target: Target) -> motes.laws.Law:
    return target.model("Tempering", 64).model.density


def values(view: Any, f: Any) -> torch.Tensor:
    if not isinstance(f, str):
        return f(view)
    name, _, place = f.rstrip("]").partition("[")
    value = view if isinstance(view, torch.Tensor) else view[name]
    return value[:, int(place)] if place else value


def test_truths_that_are_known_from_elsewhere() -> None:
    """To the digits that were found without this code: by hand, by enumeration, or published."""
    schools = KNOWN["schools"].truth()
    assert schools.log_evidence == pytest.approx(-31.311, abs=5e-4)
    assert schools.means["tau"] == pytest.approx(3.598, abs=5e-4)
    assert schools.means["tau < 1"] == pytest.approx(0.200, abs=5e-4)
    assert KNOWN["sparse-dirichlet"].truth().log_evidence == pytest.approx(-16.235, abs=5e-4)
    assert KNOWN["ising-16"].truth().log_evidence == pytest.approx(238.6422566351 - 256 * math.log(2), abs=1e-9)
    assert KNOWN["many-well-32"].truth().log_evidence == pytest.approx(164.695675313182, abs=1e-9)


def funnel(z: np.ndarray) -> np.ndarray:
    v, x = z[:, 0], z[:, 1:]
    return norm.logpdf(v, 0, 3) + norm.logpdf(x, 0, np.exp(v / 2)[:, None]).sum(1)


def two_modes(z: np.ndarray) -> np.ndarray:
    modes = [math.log(w) + norm.logpdf(z, m, s).sum(1) for w, m, s in ((0.2, -3, 0.3), (0.8, 3, 0.15))]
    return np.logaddexp(*modes)


def banana(z: np.ndarray) -> np.ndarray:
    x, y = z[:, :5], z[:, 5:]
    return (-((1 - x) ** 2) - 100 * (y - x**2) ** 2 + math.log(10 / math.pi)).sum(1)


def student(z: np.ndarray) -> np.ndarray:
    return multivariate_t(np.zeros(10), np.eye(10), 3).logpdf(z)


NORMALISED = {
    "funnel-4": funnel,
    "funnel-10": funnel,
    "two-modes": two_modes,
    "rosenbrock-10": banana,
    "student-t": student,
}


@pytest.mark.parametrize("name", NORMALISED)
def test_prior_times_likelihood_is_the_normalised_law_that_it_should_be(name: str) -> None:
    """So that log Z = 0; another normaliser by 1e-9, or another width, shows."""
    law = density_of(KNOWN[name])
    z = law.sample(motes.Rng(4).at("prior"), 50)
    state = law.evaluate(z)
    assert KNOWN[name].truth().log_evidence == 0.0
    assert np.allclose(state["log_prior"] + state["log_likelihood"], NORMALISED[name](z.numpy()), rtol=1e-9, atol=1e-9)


# not `precision`, whose draws underflow in torch and are moved in from the edge here
CUBES = ("coin", "counts", "line", "mean-and-sd", "regression-raw", "schools", "sparse-dirichlet", "shell-5")


@pytest.mark.parametrize("name", CUBES)
def test_peers_get_the_same_prior_and_likelihood(name: str) -> None:
    """Log-likelihoods of draws by way of the unit cube and of draws of the law have one law, by the test of
    Kolmogorov and Smirnov at the level 1e-6; those of other points have not."""
    problem = Problem(KNOWN[name])
    x = problem.from_cube(motes.Rng(5).at("cube").uniform((2000, problem.dim)).numpy())
    theirs, ours = problem.log_likelihood(x), problem.parts(problem.draw(6, 2000))["log_likelihood"]
    assert ks_2samp(theirs, np.maximum(ours, -1e300)).pvalue > 1e-6
    assert ks_2samp(problem.log_likelihood(x**2), np.maximum(ours, -1e300)).pvalue < 1e-6
    state = problem.law.evaluate(problem.law.unconstrain(problem.values(x[:20])))
    assert np.allclose(state["log_likelihood"], theirs[:20], rtol=1e-6)


def test_a_peer_is_judged_by_what_it_states(tmp_path, monkeypatch) -> None:
    told = {"log_evidence": -9.0, "se": 0.01, "means": {"p": [0.61, 0.01]}}
    monkeypatch.setattr(peers, "find", lambda name: SimpleNamespace(N=7, run=lambda problem, seed: told))
    target = KNOWN["coin"]
    row = runner.row(
        target, "dynesty", 7, 2, attempt=lambda seed: peers.attempt(target, "dynesty", seed), folder=tmp_path
    )
    verdict = judge.judge(row, target)
    assert (verdict.runs, verdict.silent, verdict.bars["p"]) == (2, 2, 1.0)
    assert "## Other packages" in table.write(KNOWN, tmp_path)
