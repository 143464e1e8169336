"""Designs: what is kept, with which probability and which weight; every outcome walked through, and broken twins."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch

import motes
from motes.core.resampling import (
    conditional_multinomial,
    conditional_poisson,
    find_scheme,
    schemes,
    systematic_rows,
    tempered,
    thin,
    without_replacement,
)
from motes.core.resampling.designs.gumbel import given_maximum, largest, log_inclusion
from motes.errors import MotesError, ShapeError
from motes.testing import enumerate_runs

WEIGHTS = {
    "one heavy": [0.7, 0.1, 0.1, 0.06, 0.04],
    "two heavy": [5.0, 4.0, 0.2, 0.1, 0.3, 0.05],
    "equal": [1.0, 1.0, 1.0, 1.0, 1.0],
    "ties at the edge": [2.0, 1.0, 1.0],
    "a gap": [0.3, 0.0, 0.3, 0.4, 0.2],
}
LAW = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04], dtype=torch.float64)
Z = 4.9


def test_no_design_is_found_as_a_scheme() -> None:
    assert not {"conditional multinomial", "thin", "tempered", "without_replacement"} & set(schemes)


# ------------------------------------------------------------------------------------------------ optimal


def threshold(w: list[float], n: int) -> float:
    """c with sum min(1, c w) = n, by bisection."""
    low, high = 0.0, n / min(v for v in w if v > 0)
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if sum(min(1.0, c * v) for v in w) < n else (low, c)
    return high


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_reduction_keeps_n_distinct_with_the_right_probabilities(name, n):
    """Every outcome: n are kept, each with probability min(1, c w), and the sum of the weights stays what it was."""
    w = WEIGHTS[name]
    total, found = 0.0, [0.0] * len(w)
    c = threshold(w, n)
    for p, (kept, log_q) in enumerate_runs(lambda rng: thin(rng, torch.tensor([w], dtype=torch.float64).log(), n)):
        total += p
        q = log_q[0].exp().tolist()
        if sum(v > 0 for v in w) <= n:
            assert kept[0].tolist() == [v > 0 for v in w] and set(q) == {1.0}
            c = math.inf
        else:
            assert q == pytest.approx([min(1.0, c * v) for v in w], abs=1e-12)
            assert sum(q) == pytest.approx(n, abs=1e-12)
            assert int(kept.sum()) == n or p < 1e-12
        at = torch.nonzero(kept[0])[:, 0].tolist()
        assert sum(w[i] / q[i] for i in at) == pytest.approx(sum(w), abs=1e-12) or p < 1e-12
        for i in at:
            found[i] += p * w[i] / q[i]
    assert total == pytest.approx(1, abs=1e-12)
    assert found == pytest.approx(w, abs=1e-12)


def test_rows_are_reduced_side_by_side():
    w = torch.tensor([[0.7, 0.1, 0.1, 0.06, 0.04], [0.5, 0.5, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]]).double()
    rng = motes.Rng(5)
    kept, log_q = thin(rng, w.log(), 3)
    assert kept.sum(1).tolist() == [3, 2, 3]
    alone, alone_q = thin(rng, w[2:].log(), 3, ids=torch.tensor([2]))
    assert torch.equal(alone[0], kept[2]) and torch.equal(alone_q[0], log_q[2])


def test_reduction_at_extreme_weights():
    """Weights over 400 orders of magnitude, and 100 000 candidates: the number kept is right and q adds up to it."""
    kept, log_q = thin(motes.Rng(0), torch.tensor([[0.0, -900.0, -901.0, -1.0]]).double(), 3)
    assert kept[0].tolist()[::3] == [True, True] and int(kept.sum()) == 3
    assert log_q.exp()[0].tolist() == pytest.approx([1, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 1], abs=1e-9)
    many = 3 * motes.Rng(1).normal((1, 100_000))
    kept, log_q = thin(motes.Rng(2), many, 64)
    assert int(kept.sum()) == 64 and float(log_q.exp().sum()) == pytest.approx(64, abs=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_reduction_varies_least(n):
    """The sum of variances w^2 (1 / q - 1) is convex in q; at its minimum under sum q = n and q <= 1 the slopes w / q
    of all q below 1 are equal, and those of the others no smaller."""
    w = torch.tensor([v for v in WEIGHTS["two heavy"] for _ in range(2)], dtype=torch.float64)
    w = w + 0.01 * torch.arange(len(w))
    kept, log_q = thin(motes.Rng(0), w[None].log(), n)
    q = log_q[0].exp()
    slope = w / q
    light = q < 1
    assert int(light.sum()) > n and float(q.sum()) == pytest.approx(n, abs=1e-12)
    assert slope[light].tolist() == pytest.approx([float(slope[light][0])] * int(light.sum()), rel=1e-12)
    assert bool((slope[~light] >= slope[light].max() - 1e-12).all()) and int(kept.sum()) == n


def test_arguments_of_the_reduction():
    with pytest.raises(MotesError, match="at least 1"):
        thin(motes.Rng(0), torch.zeros(1, 3).double(), 0)
    with pytest.raises(ShapeError, match="float64"):
        thin(motes.Rng(0), torch.zeros(3), 1)


# ------------------------------------------------------------------------------------------------ conditional Poisson


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_subsets_have_the_conditional_poisson_law(k):
    """Every subset's probability and every inclusion probability equals brute force; the latter add up to k."""
    odds = LAW / (1 - LAW)
    law = {s: math.prod(float(odds[i]) for i in s) for s in itertools.combinations(range(5), k)}
    total = sum(law.values())
    included = [sum(v for s, v in law.items() if i in s) / total for i in range(5)]
    assert sum(included) == pytest.approx(k)
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for p, (chosen, log_q) in enumerate_runs(lambda rng: conditional_poisson(rng, LAW.log(), k)):
        found[tuple(chosen.tolist())] += p
        assert log_q.exp().tolist() == pytest.approx([included[i] for i in chosen.tolist()], abs=1e-12)
    assert {s: found[s] for s in law} == pytest.approx({s: v / total for s, v in law.items()}, abs=1e-12)


def test_a_sure_candidate_is_always_in():
    chosen, log_q = conditional_poisson(motes.Rng(0), torch.tensor([0.0, -40.0, -41.0]).double(), 1)
    assert chosen.tolist() == [0] and float(log_q[0]) == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------------------------ one by one


def test_picks_are_those_of_drawing_one_by_one():
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    law = defaultdict(float)
    for p, picks in enumerate_runs(lambda rng: tuple(without_replacement(rng, weight, 2).tolist())):
        law[picks] += p
    w = weight.tolist()
    truth = {(i, j): w[i] * w[j] / (1 - w[i]) for i in range(3) for j in range(3) if i != j}
    assert law == pytest.approx(truth, abs=1e-12)
    assert without_replacement(None, weight, 5).tolist() == [0, 1, 2]  # pyright: ignore


def test_the_largest_child_has_its_parents_gumbel():
    rng = motes.Rng(3)
    free = LAW.log() + rng.at("free").gumbel((200, 5))
    parent = rng.at("parent").gumbel((200,))
    out = given_maximum(free, parent)
    torch.testing.assert_close(out.amax(1), parent)
    assert torch.equal(out.argmax(1), free.argmax(1))


def one_by_one(keep, n: int = 2) -> dict[tuple[int, ...], float]:
    """How often each pair is drawn, in order, of 4000."""
    count: dict[tuple[int, ...], float] = defaultdict(float)
    noise = motes.Rng(0).at("gumbel").gumbel((4000, len(LAW)))
    for row in noise:
        count[tuple(keep(LAW.log() + row, n).tolist())] += 1 / 4000
    return count


def test_the_largest_are_drawn_without_replacement() -> None:
    """Pairs have the law of two draws; what is dropped is the threshold, and inclusion given it has a closed form."""
    low = torch.tensor(-math.inf, dtype=torch.float64)
    found = one_by_one(lambda g, n: largest(g, low, n)[1])
    p = LAW.tolist()
    for i, j in itertools.permutations(range(5), 2):
        truth = p[i] * p[j] / (1 - p[i])
        assert abs(found[i, j] - truth) < Z * math.sqrt(truth / 4000)
    twin = one_by_one(lambda g, n: g.exp().topk(1).indices.expand(n))
    assert any(abs(twin[i, j] - p[i] * p[j] / (1 - p[i])) > 0.05 for i, j in itertools.permutations(range(5), 2))
    value, index, threshold = largest(LAW.log(), low, 2)
    assert index.tolist() == [0, 1] and float(threshold) == pytest.approx(math.log(0.2))
    assert log_inclusion(LAW.log(), low).exp().tolist() == [1] * 5
    assert largest(LAW.log(), value[1], 5)[1].tolist() == [0]


# ------------------------------------------------------------------------------------------------ tempered, conditional


@pytest.mark.parametrize("heat", [1.0, 2.0, 5.0])
def test_tempered_resampling_is_properly_weighted(heat) -> None:
    """Every outcome: the mean of what each particle's children weigh is its own weight; without the rest it is not."""
    w = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    found, twin, scheme = torch.zeros(3).double(), torch.zeros(3).double(), find_scheme("multinomial")
    for p, (index, left) in enumerate_runs(lambda rng: tempered(rng, scheme, w.log(), heat)):
        found.index_add_(0, index, p * left.exp())
        twin.index_add_(0, index, torch.full((3,), p, dtype=torch.float64))
    assert found.tolist() == pytest.approx(w.tolist(), abs=1e-9)
    assert heat == 1 or float((twin / 3 - w).abs().max()) > 0.05


def test_weights_are_not_sharpened() -> None:
    with pytest.raises(MotesError, match="at least 1"):
        tempered(motes.Rng(0), find_scheme("systematic"), torch.zeros(3).double(), 0.5)


def test_the_first_particle_survives() -> None:
    """Every outcome: its own parent, however light it is; the others' parents are independent, itself included."""
    w = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    law: dict[tuple[int, ...], float] = defaultdict(float)
    for p, parent in enumerate_runs(lambda rng: conditional_multinomial(rng, w.log())):
        law[tuple(parent.tolist())] += p
    truth = {(0, i, j): float(w[i] * w[j]) for i in range(3) for j in range(3)}
    assert law == pytest.approx(truth, abs=1e-12)
    plain = {tuple(q.tolist()) for _, q in enumerate_runs(lambda rng: find_scheme("multinomial")(rng, w.log()))}
    assert any(parents[0] != 0 for parents in plain)


# ------------------------------------------------------------------------------------------------ rows


def test_resampling_within_rows():
    w = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0], [0, 0, 0, 1]]).double().log()
    many = w.repeat(20_000, 1)
    parent = systematic_rows(motes.Rng(0), many)
    count = torch.nn.functional.one_hot(parent, 4).sum(1).view(20_000, 4, 4).double().mean(0)
    expected = torch.stack([4 * w[0].exp(), 4 * w[1].exp(), torch.ones(4), 4 * w[3].exp()])
    assert (count - expected).abs().max() < Z * 0.5 / math.sqrt(20_000)
    assert torch.equal(parent[2::4], torch.arange(4).expand(20_000, 4))
    assert not ((parent[::4] == 0) | (parent[::4] == 3)).any()
