"""Parallel tempering: swaps by enumeration, ladders, the bridge, and two modes of unequal weight."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import motes
from motes.core.estimate.estimate import Estimate
from motes.density.markov.exchange import (
    bridge,
    equal_rejection,
    exchanged,
    hardly_overlap,
    nearest,
    pairs,
    rungs_for,
    swap_probability,
)
from motes.density.markov.parallel_tempering import ParallelTempering
from motes.density.markov.rungs import Rungs, levelled
from motes.errors import FileError, MotesError
from motes.laws import Density
from motes.laws.discrete import Discrete

Z = 4.9  # two-sided level 1e-6
T31 = 6.0  # the same of Student's t with 31 degrees of freedom, for an error from 32 chains
LADDER = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
LEFT, LOG_Z = 0.155692904, 9.374541173869 + 0.5 * math.log(2 * math.pi)  # of exp(x/2 + 6 x^2 - x^4 - y^2 / 2)


# ------------------------------------------------------------------------------------------------ swaps

PRIOR = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
LIKELIHOOD = torch.tensor([1.0, 0.0, 5.0], dtype=torch.float64)


def flow(parity: int, probability=swap_probability) -> torch.Tensor:
    """(27, 27) the probability to be in one and go to another of all states of three walkers with three values.

    A state with likelihood zero above temperature 0 has no probability.
    """
    states = torch.tensor(list(product(range(3), repeat=3)))
    law = PRIOR[states] * LIKELIHOOD[states] ** LADDER
    total = law.prod(1) / (PRIOR[:, None] * LIKELIHOOD[:, None] ** LADDER).sum(0).prod()
    accept = probability(LADDER, LIKELIHOOD.log()[states])
    lower = pairs(3, parity)
    found = torch.zeros(27, 27, dtype=torch.float64)
    for taken in product([False, True], repeat=len(lower)):
        chosen = torch.tensor(taken).expand(27, -1)
        place = exchanged(lower, chosen, 3)
        after = states.gather(1, place)
        chance = torch.where(chosen, accept[:, lower], 1 - accept[:, lower]).prod(1)
        index = after @ torch.tensor([9, 3, 1])
        found[torch.arange(27), index] += total * chance
    return found


@pytest.mark.parametrize("parity", [0, 1])
def test_swaps_are_in_detailed_balance(parity):
    found = flow(parity)
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    assert torch.allclose(found, found.T, atol=1e-15)
    assert (found - found.diag().diag()).sum() > 0.01  # something is swapped


def test_swaps_with_the_temperatures_confused_are_not():
    found = flow(0, lambda ladder, x: swap_probability(ladder.flip(0), x))
    assert not torch.allclose(found, found.T, atol=1e-3)


def test_pairs_alternate():
    assert pairs(5, 0).tolist() == [0, 2] and pairs(5, 1).tolist() == [1, 3] and pairs(2, 1).tolist() == []
    place = exchanged(pairs(4, 0), torch.tensor([[True, False], [True, True]]), 4)
    assert place.tolist() == [[1, 0, 2, 3], [1, 0, 3, 2]]


# ------------------------------------------------------------------------------------------------ ladders


def test_a_ladder_of_equal_rejection_stays_and_another_moves_towards_it():
    even = torch.full((2,), 0.4, dtype=torch.float64)
    assert torch.allclose(equal_rejection(LADDER, even, 3), LADDER)
    # twice as many rejections below 0.3: half of all lie below 0.3 * 3/4
    moved = equal_rejection(LADDER, torch.tensor([0.8, 0.4], dtype=torch.float64), 3)
    assert moved.tolist() == pytest.approx([0, 0.3 * 0.75, 1])
    moved = equal_rejection(LADDER, torch.tensor([0.4, 0.8], dtype=torch.float64), 3)
    assert moved.tolist() == pytest.approx([0, 0.3 * (1 / 0.3) ** 0.25, 1])  # a quarter of the way in log b
    still = equal_rejection(LADDER, torch.zeros(2, dtype=torch.float64), 3)
    assert (still.diff() > 0).all()


def test_as_many_temperatures_as_let_half_of_the_swaps_pass():
    assert rungs_for(torch.full((7,), 0.3), 64) == 8  # enough are there
    assert rungs_for(torch.full((7,), 0.95), 64) == 15 and rungs_for(torch.full((7,), 0.95), 12) == 12
    new = torch.tensor([0.0, 0.05, 0.29, 0.4, 0.9, 1.0], dtype=torch.float64)
    assert nearest(LADDER, new).tolist() == [0, 1, 1, 1, 2, 2]  # none but the first is a draw from the prior


# ------------------------------------------------------------------------------------------------ the bridge


def exact(seed: int, draws: int) -> tuple[torch.Tensor, float]:
    """Log-likelihoods (32, T, 3) at exact draws from prior N(0, 1) x N(2 | x, 0.09)^b, and the log evidence."""
    x = motes.Rng(seed).normal((32, draws, 3))
    precision = 1 + LADDER / 0.09
    x = x / precision.sqrt() + (2 * LADDER / 0.09) / precision
    likelihood = Normal(torch.tensor(2.0, dtype=torch.float64), 0.3).log_prob(x)
    return likelihood, float(
        Normal(torch.tensor(0.0, dtype=torch.float64), math.sqrt(1.09)).log_prob(torch.tensor(2.0))
    )


def test_the_bridge_and_its_error_on_exact_draws():
    """Twenty-five estimates with an error of 0.04 each: an error of 0.04 in their mean would be seen."""
    z, size = [], []
    for seed in range(25):
        likelihood, truth = exact(seed, 100)
        found, influence = bridge(LADDER, likelihood)
        assert float(influence.mean()) == pytest.approx(0, abs=1e-9)
        size.append(float(influence.std()) / math.sqrt(3200))
        z.append((found - truth) / size[-1])
    assert abs(np.mean(z)) * 5 < Z and max(size) < 0.08
    assert 0.5 < np.std(z) < 1.7
    likelihood, truth = exact(0, 100)
    confused, influence = bridge(LADDER, likelihood.roll(1, 2))
    assert abs(confused - truth) > Z * float(influence.std()) / math.sqrt(3200)
    likelihood[3, 5, 2] = -math.inf
    with pytest.raises(MotesError, match=r"chains \[3\]"):
        bridge(LADDER, likelihood)


# ------------------------------------------------------------------------------------------------ coordinates


@pytest.mark.parametrize("dense", [True, False])
def test_walkers_in_their_own_coordinates(dense):
    """The log-density is that of the point, the gradient its derivative by the coordinates, and so for parts."""
    density, rng = many_well(), motes.Rng(0)
    z, b = rng.normal((6, 2)), rng.at("b").uniform((6,))
    factor = rng.at("s").uniform((6, 2)) + 0.5
    if dense:
        factor = factor.diag_embed()
        factor[:, 1, 0] = 0.7
    target = Rungs(density, b, rng.at("c").normal((6, 2)), factor)
    state = target.enter(density.evaluate(z, True))
    again = target.evaluate(state["position"], True)
    assert torch.allclose(again["place"], z) and torch.equal(state["place"], z)
    exact = density.evaluate(z)
    assert torch.allclose(target.log_density(again), exact["log_prior"] + b * exact["log_likelihood"])
    h = 1e-6
    for i in range(2):
        step = torch.zeros(6, 2, dtype=torch.float64)
        step[:, i] = h
        up, down = (target.log_density(target.evaluate(again["position"] + v, False)) for v in (step, -step))
        assert torch.allclose((up - down) / (2 * h), target.gradient(again)[:, i], rtol=1e-5, atol=1e-5)
        moved = (target.gradient(target.evaluate(again["position"] + v, True)) for v in (step, -step))
        up, down = moved
        vector = torch.zeros(6, 2, dtype=torch.float64)
        vector[:, i] = 1.0
        product = target.hessian_vector(again["position"], vector)
        assert torch.allclose((up - down) / (2 * h), product, rtol=1e-4, atol=1e-4)
    index = torch.tensor([4, 1])
    part = target.part(index)
    some = part.evaluate(again["position"][index], True)
    assert torch.allclose(part.gradient(some), target.gradient(again)[index])


def test_scales_that_accept_alike():
    even = levelled(torch.ones(3, dtype=torch.float64), torch.tensor([0.4, 0.4, 0.4]), 1.0)
    assert even.tolist() == pytest.approx([1, 1, 1])
    few, many = levelled(torch.ones(2, dtype=torch.float64), torch.tensor([0.2, 0.6]), 1.0).tolist()
    assert few < 1 < many and few * many == pytest.approx(1)


# ------------------------------------------------------------------------------------------------ runs


def many_well() -> Density:
    """Two wells at x = -1.7 and 1.8, as a likelihood over a wide normal."""
    prior = Normal(torch.zeros(2, dtype=torch.float64), 3.0)

    def log_likelihood(x):
        a, b = x[:, 0], x[:, 1]
        return 0.5 * a + 6 * a.square() - a**4 - 0.5 * b.square() - prior.log_prob(x).sum(-1)

    return Density(log_likelihood, prior, vectorised=True)


def left(run) -> Estimate:
    return run.mean(lambda x: (x[:, :1] < 0).double())


def test_two_wells_of_unequal_weight():
    """32 chains know the left well's mass to 0.02 and the log evidence to 0.05."""
    run = motes.sample(ParallelTempering(many_well(), temperatures=6, draws=60, rounds=4), 32, seed=0, progress=False)
    assert abs(float(left(run)) - LEFT) < T31 * float(left(run).se) < 0.25
    assert abs(run.log_evidence - LOG_Z) < T31 * run.log_evidence_se < 0.5
    assert run.view.shape == (32, 60, 2) and run.trace["arrivals"][-1] > 100
    assert run.trace["rejection"][-1] < 1.5 * run.trace["barrier"][-1] / 5  # the most against the mean
    ladder = run.particles.shared["ladder"]
    assert ladder[0] == 0 and ladder[-1] == 1 and (ladder.diff() > 0).all()


def test_many_random_walks_and_their_error_bars():
    model = ParallelTempering(many_well(), kernel="random-walk", temperatures=5, draws=60, rounds=4)
    runs = [motes.sample(model, 32, seed=s, progress=False) for s in range(12)]
    error, se = (np.array(v) for v in zip(*((r.log_evidence - LOG_Z, r.log_evidence_se) for r in runs), strict=True))
    assert abs(error.mean()) < Z * se.mean() / math.sqrt(12) + se.mean() ** 2
    assert 0.4 < error.std(ddof=1) / se.mean() < 1.9  # 12 runs know their spread to 20 %
    mass = np.array([float(left(r)) - LEFT for r in runs])
    assert abs(mass.mean()) < Z * float(left(runs[0]).se) / math.sqrt(12)


def test_many_dimensions_have_as_many_temperatures_as_they_need():
    """N(2, .09) in 60 dimensions under N(0, 1): of 4 temperatures no neighbours overlap."""
    prior = Normal(torch.zeros(60, dtype=torch.float64), 1.0)
    density = Density(lambda x: -((x - 2).square() / 0.18).sum(1), prior, vectorised=True)
    truth = 60 * (0.5 * math.log(0.09 / 1.09) - 2 / 1.09)
    run = motes.sample(ParallelTempering(density, draws=60, rounds=5), 16, seed=0, progress=False)
    assert len(run.particles.shared["ladder"]) > 12 and run.trace["rejection"][-1] < 0.8
    assert abs(run.log_evidence - truth) < T31 * run.log_evidence_se < 3
    with pytest.warns(match="hardly overlap"):
        few = motes.sample(ParallelTempering(density, temperatures=4, draws=60, rounds=5), 16, seed=0, progress=False)
    assert math.isnan(few.log_evidence_se) and "hardly overlap" in few.standard_error.reason
    assert "evidence" in few.doubts and abs(few.log_evidence - truth) > 3


def test_chains_that_are_each_somewhere_else_have_no_error_bar_of_the_evidence():
    """In eight dimensions a mode of half the width holds .8 of the mass, and few walkers reach it; log Z is 0."""
    centre, width = (
        torch.tensor([[-3.0], [3.0]], dtype=torch.float64),
        torch.tensor([[0.3], [0.15]], dtype=torch.float64),
    )
    prior, share = Normal(torch.zeros(8, dtype=torch.float64), 3.0), torch.tensor([0.2, 0.8], dtype=torch.float64)

    def log_likelihood(x):
        each = Normal(centre, width).log_prob(x[:, None]).sum(-1)
        return torch.logsumexp(share.log() + each, 1) - prior.log_prob(x).sum(-1)

    model = ParallelTempering(Density(log_likelihood, prior, vectorised=True), draws=300, rounds=5)
    for seed in range(1, 4):
        run = motes.sample(model, 16, seed=seed, progress=False)
        right = run.mean(lambda x: (x[:, 0] > 0).double())
        if 0 < float(right):  # some walker met it
            assert "somewhere else" in run.standard_error.reason and "somewhere else" in right.reason
            assert run.log_evidence < -0.5  # the broken twin: what a bar of .04 to .09 would have said
            return
    raise AssertionError("no run met the mode")


def test_a_bridge_that_few_draws_bear_has_no_error_bar():
    likelihood, _ = exact(0, 100)
    assert not hardly_overlap(LADDER, likelihood)
    likelihood[3, 5, 2] = -200.0  # one that has not arrived bears the mean of L^(-.35) above
    assert "few draws bear the bridge" in hardly_overlap(LADDER, likelihood)
    even = torch.zeros(32, 100, 3, dtype=torch.float64)
    even[..., 2] = 9.0
    assert "hardly overlap" in hardly_overlap(LADDER, -even) + hardly_overlap(LADDER, even)


def test_without_swaps_the_wells_have_the_weight_of_the_start(monkeypatch):
    monkeypatch.setattr("motes.density.markov.rung_walk.swap_probability", lambda ladder, x: torch.zeros_like(x[:, 1:]))
    model = ParallelTempering(many_well(), kernel="random-walk", temperatures=5, draws=60, rounds=4)
    with pytest.warns(match="no walker travelled"):
        run = motes.sample(model, 32, seed=0, progress=False)
    assert abs(float(left(run)) - LEFT) > T31 * 0.025


def test_spins_on_a_ring():
    """Whole numbers have no coordinates to whiten; the partition function is that of the transfer matrix."""
    ring = Discrete(lambda x: 1.2 * ((2 * x - 1) * (2 * x.roll(1, 1) - 1)).sum(1), dim=8)
    truth = math.log((2 * math.cosh(1.2)) ** 8 + (2 * math.sinh(1.2)) ** 8) - 8 * math.log(2)
    run = motes.sample(ParallelTempering(ring, temperatures=4, draws=60, rounds=3), 32, seed=0, progress=False)
    assert abs(run.log_evidence - truth) < T31 * run.log_evidence_se < 0.6
    up = run.mean(lambda x: x.mean(1, keepdim=True))
    assert abs(float(up) - 0.5) < T31 * float(up.se) < 0.3


def test_a_few_chains_have_an_error_bar_from_parts_of_chains():
    model = ParallelTempering(many_well(), kernel="random-walk", temperatures=4, draws=400, rounds=4)
    run = motes.sample(model, 2, seed=3, progress=False)
    assert abs(run.log_evidence - LOG_Z) < T31 * run.log_evidence_se < 2
    short = ParallelTempering(many_well(), kernel="random-walk", temperatures=4, draws=20, rounds=2)
    assert "too few" in motes.sample(short, 2, seed=3, progress=False).standard_error.reason


def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path):
    def model(draws=40, density=None):
        return ParallelTempering(density or many_well(), kernel="random-walk", temperatures=4, draws=draws, rounds=3)

    whole = motes.sample(model(), 6, seed=5, progress=False)
    for stop in (2, 7):  # in the warm-up and between draws
        path = tmp_path / f"{stop}.motes"
        part = motes.sample(model(), 6, seed=5, progress=False, checkpoint=path, max_steps=stop)
        assert part.view.shape[:2] == (6, 1 if stop == 2 else 8)
        rest = motes.resume(path, model(), progress=False)
        assert torch.equal(rest.view, whole.view) and rest.log_evidence == whole.log_evidence
    other = Density(lambda x: -x.square().sum(-1), Normal(torch.zeros(2, dtype=torch.float64), 3.0), vectorised=True)
    motes.sample(model(), 6, seed=5, progress=False, checkpoint=tmp_path / "x", max_steps=4)
    with pytest.raises(FileError, match="log-likelihood"):
        motes.resume(tmp_path / "x", model(density=other), progress=False)


def test_faults_are_errors():
    wrong: list[dict[str, Any]] = [{"temperatures": 1}, {"draws": 0}, {"rounds": 0}, {"sweeps": 0}]
    for knobs in wrong:
        with pytest.raises(ValueError, match="need temperatures"):
            ParallelTempering(many_well(), **knobs)
    never = Density(
        lambda x: torch.where(x[:, 0] > 9, 0.0 * x[:, 0], -math.inf), Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    )
    with pytest.raises(MotesError, match="likelihood is zero"):
        motes.sample(ParallelTempering(never, kernel="random-walk", draws=10, rounds=1), 4, seed=0, progress=False)
