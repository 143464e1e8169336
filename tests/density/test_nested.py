"""Nested sampling: no bias with ideal moves, ties or not; coverage of the error bar; ranks; moments; resumed runs."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, Uniform

import motes
from motes.density.nested import nested
from motes.density.nested.nested import NestedSampling
from motes.density.nested.nested_error import ranks, unlikely
from motes.kernels.moves import Moved
from motes.laws import Density
from motes.laws.discrete import Discrete

Z = 4.9  # two-sided level 1e-6
F = torch.float64


def ideal(kernel, rng, target, state, weight, parameters, **_):
    """Exact draws of a standard normal above a level that grows with z: L is known to be a function of floor(8 z)."""
    cells = torch.arange(-80, 80, dtype=F) / 8
    lowest = cells[target.density.evaluate(cells[:, None] + 1e-9)["log_likelihood"] > target.level].min()
    tail = 0.5 * torch.special.erfc(lowest / math.sqrt(2))
    z = -torch.special.ndtri(tail * rng.at("exact").uniform((len(weight),)))
    return Moved(target.evaluate(z[:, None], False), parameters, parameters, 1, {"evaluations": 1.0})


def staircase(x):
    """Log-likelihood: zero below -0.5, and flat on cells of width 1 / 8."""
    step = (8 * x[:, 0]).floor() / 8
    return torch.where(step >= -0.5, (1.5 * step).clamp(max=3.0), -math.inf)


def exact_staircase() -> float:
    edges = np.concatenate([np.arange(-0.5, 2.0 + 1e-9, 0.125), [np.inf]])
    low = np.array([0.5 * math.erfc(e / math.sqrt(2)) for e in edges])
    return float(np.sum((low[:-1] - low[1:]) * np.exp(1.5 * edges[:-1])))


def staircases(seeds: int, **knobs) -> np.ndarray:
    prior = Normal(torch.zeros(1, dtype=F), 1.0)
    model = NestedSampling(Density(staircase, prior, vectorised=True), sweeps=1, **knobs)
    found = [motes.sample(model, 24, seed=s, progress=False).log_evidence for s in range(seeds)]
    return np.exp(np.array(found)) / exact_staircase()


@pytest.mark.parametrize(("discard", "seeds"), [(0.04, 38), (0.5, 80)])
def test_ideal_moves_leave_no_bias_in_spite_of_ties(discard, seeds, monkeypatch):
    """24 particles, relative spread 0.25 a run: a bias of 0.14 would be seen with 80 runs."""
    monkeypatch.setattr(nested, "move", ideal)
    ratio = staircases(seeds, discard=discard, tolerance=0.05)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(seeds) < 0.2
    if discard == 0.5:  # the classical volumes, which are the mean of log X
        monkeypatch.setattr(nested, "compression", lambda left, n: -(n - left) / n)
        ratio = staircases(40, discard=discard, tolerance=0.05)
        assert abs(ratio.mean() - 1) > Z * ratio.std(ddof=1) / math.sqrt(40)


def gaussian(d: int, y: float = 2.0) -> tuple[Density, float]:
    """Prior N(0, I), likelihood N(y | x, 0.09 I), and the exact log evidence."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)

    def log_likelihood(x):
        return (-0.5 * ((x - y) / 0.3).square() + constant).sum(-1)

    truth = d * (-math.log(2 * math.pi * 1.09) / 2 - y * y / 2 / 1.09)
    return Density(log_likelihood, Normal(torch.zeros(d, dtype=F), 1.0), vectorised=True), truth


def correlated(d: int, rho: float = 0.95) -> tuple[Density, float]:
    """Prior N(0, I), likelihood N(0.5 | x, 0.04 R) with all correlations rho."""
    noise = 0.04 * (rho * torch.ones(d, d, dtype=F) + (1 - rho) * torch.eye(d, dtype=F))
    precision, mean = torch.linalg.inv(noise), torch.full((d,), 0.5, dtype=F)
    constant = -0.5 * float(torch.logdet(noise) + d * math.log(2 * math.pi))
    whole = torch.distributions.MultivariateNormal(torch.zeros(d, dtype=F), noise + torch.eye(d, dtype=F))
    density = Density(
        lambda x: -0.5 * (((x - mean) @ precision) * (x - mean)).sum(-1) + constant,
        Normal(torch.zeros(d, dtype=F), 1.0),
        vectorised=True,
    )
    return density, float(whole.log_prob(mean))


def shell(d: int, radius: float = 2.0, width: float = 0.1) -> tuple[Density, float]:
    """Prior N(0, I), likelihood on a thin sphere; the evidence by quadrature of the radius."""
    r = np.linspace(1e-6, 10, 200_001)
    log_p = (d - 1) * np.log(r) - r * r / 2 - (d / 2 - 1) * math.log(2) - math.lgamma(d / 2)
    truth = float(np.log(np.trapezoid(np.exp(log_p - 0.5 * ((r - radius) / width) ** 2), r)))
    prior = Normal(torch.zeros(d, dtype=F), 1.0)
    return Density(lambda x: -0.5 * ((x.norm(dim=-1) - radius) / width).square(), prior, vectorised=True), truth


def two(d: int, weight: float = 0.7, sd: float = 0.15) -> tuple[Density, float]:
    """Prior N(0, I), likelihood 0.7 N(x | 1, sd^2 I) + 0.3 N(x | -1, sd^2 I): modes that no small step connects."""

    def log_likelihood(x):
        parts = [
            math.log(w) + Normal(m * torch.ones((), dtype=F), sd).log_prob(x).sum(-1)
            for w, m in ((weight, 1.0), (1 - weight, -1.0))
        ]
        return torch.logaddexp(*parts)

    v = 1 + sd * sd
    truth = d * (-0.5 * math.log(2 * math.pi * v) - 0.5 / v)
    return Density(log_likelihood, Normal(torch.zeros(d, dtype=F), 1.0), vectorised=True), truth


def funnel(d: int = 5, y: float = 0.5) -> tuple[Density, float]:
    """log-scale v ~ N(0, 1.5), x_i | v ~ N(0, exp v) within a box, seen with noise; by two nested quadratures."""

    def log_likelihood(p):
        v, x = p["v"], p["x"]
        neck = (-0.5 * x.square() * torch.exp(-v)[:, None] - 0.5 * v[:, None]).sum(-1)
        return neck + (-0.5 * ((x - y) / 0.3).square() - 0.5 * math.log(2 * math.pi)).sum(-1)

    box = torch.full((d - 1,), 10.0, dtype=F)
    prior = {"v": Normal(torch.zeros((), dtype=F), 1.5), "x": Uniform(-box, box)}
    v, x = np.linspace(-12, 12, 1201), np.linspace(-10, 10, 4001)
    log_p = -0.5 * x * x * np.exp(-v[:, None]) - 0.5 * v[:, None] - 0.5 * ((x - y) / 0.3) ** 2
    inner = np.log(np.trapezoid(np.exp(log_p - 0.5 * math.log(2 * math.pi)) / 20, x, axis=1))
    outer = np.exp((d - 1) * inner - 0.5 * (v / 1.5) ** 2) / 1.5 / math.sqrt(2 * math.pi)
    return Density(log_likelihood, prior, vectorised=True), float(np.log(np.trapezoid(outer, v)))


def few(n: int, nominal: float) -> int:
    """The most intervals of n that may cover the truth and yet be too few at level 1e-6."""
    below = 0.0
    for k in range(n + 1):
        below += math.comb(n, k) * nominal**k * (1 - nominal) ** (n - k)
        if below > 1e-6:
            return k - 1
    return n


def check(density: Density, truth: float, n: int, seeds: int, **knobs) -> None:
    """The evidence has no bias, and its error bars cover at their nominal rate or nearly.

    What it would catch with 40 seeds: error bars 0.55 times what they should be, and a bias of 0.8 of one.
    """
    runs = [motes.sample(NestedSampling(density, **knobs), n, seed=s, progress=False) for s in range(seeds)]
    error = np.array([r.log_evidence - truth for r in runs])
    se = np.array([r.log_evidence_se for r in runs])
    known = np.isfinite(se)  # where modes do not mix some runs say that they cannot tell
    assert known.mean() >= 0.95, [r.standard_error.reason for r in runs]
    error, se, seeds = error[known], se[known], int(known.sum())
    assert abs(error.mean()) < Z * error.std(ddof=1) / math.sqrt(seeds) + error.var(), error.mean()
    covered = int((np.abs(error) < 1.96 * se).sum())
    assert covered > few(seeds, 0.93), (covered / seeds, error.std(ddof=1), se.mean())
    assert (np.abs(error) < 1.96 * 0.25 * se).sum() <= few(seeds, 0.93)  # the broken twin


def test_evidence_of_a_gaussian_and_its_coverage_over_20_seeds():
    density, truth = gaussian(2)
    check(density, truth, 100, 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "d", "n"),
    [
        (gaussian, 2, 200),
        (gaussian, 5, 200),
        (gaussian, 10, 200),
        (gaussian, 20, 300),
        (correlated, 5, 200),
        (correlated, 10, 200),
        (shell, 2, 200),
        (shell, 10, 200),
        (two, 2, 200),
        (two, 5, 200),
        (funnel, 5, 200),
    ],
)
def test_coverage_over_40_seeds(problem, d, n):
    density, truth = problem(d)
    check(density, truth, n, 40)


@pytest.mark.slow
def test_coverage_with_slices():
    density, truth = gaussian(5)
    check(density, truth, 100, 40, kernel="slice")


def test_one_run_with_slices_and_its_moments():
    density, truth = gaussian(2)
    run = motes.sample(NestedSampling(density, kernel="slice"), 600, seed=1, progress=False)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 0.7
    mean = run.mean()
    assert ((mean.value - 2 / 1.09).abs() < Z * mean.se).all() and float(mean.se.max()) < 0.02
    second = run.mean(lambda x: (x - 2 / 1.09).square())
    assert ((second.value - 0.09 / 1.09).abs() < Z * second.se).all()
    assert not run.remarks


def test_few_clones_a_step_and_a_likelihood_that_is_zero_in_half_of_the_space():
    density = Density(lambda x: torch.where(x[:, 0] > 0, 0.0, -math.inf), Normal(torch.zeros(2, dtype=F), 1.0))
    run = motes.sample(NestedSampling(density), 400, seed=0, progress=False)
    assert abs(run.log_evidence - math.log(0.5)) < Z * run.log_evidence_se < 0.4
    assert (run.view[:, 0] > 0).all()
    density, truth = gaussian(1)
    run = motes.sample(NestedSampling(density, discard=0.05, keep=2), 100, seed=0, progress=False)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 1.2
    assert run.particles.shared["dead"]["position"].shape[0] <= 200


def test_spins_with_levels_that_many_states_share():
    """The Ising ring of 6 spins has four energies, against its transfer matrix."""
    ring = Discrete(lambda x: 0.5 * ((2 * x - 1) * (2 * x.roll(1, 1) - 1)).sum(1), dim=6)
    run = motes.sample(NestedSampling(ring), 400, seed=0, progress=False)
    exact = math.log((2 * math.cosh(0.5)) ** 6 + (2 * math.sinh(0.5)) ** 6) - 6 * math.log(2)
    assert abs(run.log_evidence - exact) < Z * run.log_evidence_se < 0.5


def test_ranks_of_independent_draws_are_uniform_and_those_of_others_are_not():
    """2000 ranks: moved points that lie higher by 0.3 standard deviations would be seen."""
    for shift, likely in ((0.0, True), (0.5, False)):
        counts = torch.zeros(32, dtype=torch.int64)
        for k in range(20):
            rng = motes.Rng(3).at("test", inner=k)
            others, moved = rng.at("others").normal((150,)), rng.at("moved").normal((100,)) + shift
            counts += ranks(rng, (4 * others).round(), (4 * moved).round(), 32)
        assert int(counts.sum()) == 2000
        assert (unlikely(counts) > 1e-6) == likely


def test_ranks_that_are_not_uniform_make_a_remark():
    density, _ = gaussian(1)
    model = NestedSampling(density)
    run = motes.sample(model, 100, seed=0, progress=False)
    assert model.remarks(run.particles) == []
    counts = torch.tensor([100] * 8 + [20] * 24)
    shared = {**run.particles.shared, "ranks": {"all": counts, "window": counts}}
    assert "not uniform" in model.remarks(replace(run.particles, shared=shared))[0]


def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path):
    density, _ = gaussian(2)
    whole = motes.sample(NestedSampling(density), 64, seed=5, progress=False)
    motes.sample(NestedSampling(density), 64, seed=5, progress=False, max_steps=6, checkpoint=tmp_path / "run")
    resumed = motes.resume(tmp_path / "run", NestedSampling(density), progress=False)
    assert resumed.log_evidence == whole.log_evidence and torch.equal(resumed.view, whole.view)
    assert resumed.log_evidence_se == whole.log_evidence_se


def test_control_variates_need_a_kernel_with_gradients_and_the_end_of_the_run():
    density = Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), Normal(torch.zeros(2, dtype=F), 1.0))
    plain = motes.sample(NestedSampling(density), 200, seed=0, progress=False)
    with pytest.raises(motes.errors.MotesError, match=r"its kernel, RandomWalk.*kernel='mala'"):
        plain.mean(control=True)
    run = motes.sample(NestedSampling(density, kernel="mala"), 200, seed=0, progress=False)
    truth = 2 / 1.09
    better = run.mean(control=True)
    assert bool(((better.value - truth).abs() < 1e-6).all()) and float(run.mean().se.max()) > 0.005
    early = motes.sample(NestedSampling(density, kernel="mala"), 200, seed=0, progress=False, max_steps=3)
    with pytest.raises(motes.errors.MotesError, match="ended as MAX_STEPS"):
        early.mean(control=True)


def test_knobs_out_of_range_are_refused():
    density, _ = gaussian(1)
    wrong: list[dict[str, Any]] = [
        {"discard": 1.0},
        {"tolerance": 0.0},
        {"sweeps": 0},
        {"max_correlation": 1.0},
        {"keep": 1},
    ]
    for knobs in wrong:
        with pytest.raises(ValueError, match=next(iter(knobs))):
            NestedSampling(density, **knobs)
    with pytest.raises(ValueError, match="at least 4"):
        motes.sample(NestedSampling(density), 3, seed=0, progress=False)
