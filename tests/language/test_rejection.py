"""Adaptive weighted rejection: the weighted law is exact by enumeration, and the numbers of a known example."""

from __future__ import annotations

import math

import pytest
import torch

from motes.errors import MotesError, ShapeError, UnknownName
from motes.language.generation.proposals.rejection import draw
from motes.rng import Rng
from motes.testing import enumerate_runs

P = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
VALID = torch.tensor([False, True, False, True])


def made_of(valid):
    return lambda row, token: valid[token]


def weighted_law(valid, **settings):
    """E[w 1{x}] for each token, over every outcome."""
    law, total = torch.zeros(P.shape[1], dtype=torch.float64), 0.0
    for p, (token, log_weight, _) in enumerate_runs(lambda rng: draw(rng, P.log(), made_of(valid), **settings)):
        total += p
        if token[0] >= 0:
            law[token[0]] += p * log_weight[0].exp()
    assert total == pytest.approx(1, abs=1e-12)
    return law


SETTINGS = [
    {"method": "recursive"},
    {"method": "recursive", "max_rejects": 1},
    {"method": "recursive", "max_rejects": 2},
    {"method": "geometric", "max_rejects": 1},
    {"method": "geometric", "max_rejects": 2},
    {"method": "geometric", "max_rejects": 1, "max_accepts": 3},
    {"method": "recursive", "max_refused": 2, "max_rejects": 3},
    {"method": "geometric", "max_refused": 1, "max_rejects": 3},
    {"method": "auto"},
]


OTHERS = [~VALID, torch.tensor([True] * 4), torch.tensor([False] * 3 + [True])]


@pytest.mark.parametrize(
    "valid, settings",
    [
        *((VALID, settings) for settings in SETTINGS),
        *((valid, settings) for valid in OTHERS for settings in SETTINGS[::3]),
        *(pytest.param(v, s, marks=pytest.mark.slow) for v in OTHERS for k, s in enumerate(SETTINGS) if k % 3),
    ],
    ids=str,
)
def test_the_weighted_law_is_that_of_the_valid_tokens(valid, settings):
    torch.testing.assert_close(weighted_law(valid, **settings), P[0] * valid, atol=1e-12, rtol=0)


def test_a_weight_without_the_second_draw_is_wrong():
    """The broken twin: the mass not refused so far, as a naive rejection sampler would weigh."""
    mean = 0.0
    for p, (token, refused) in enumerate_runs(naive):
        mean += p * (1 - refused)
        assert token >= 0
    assert abs(mean - float(P[0, VALID].sum())) > 0.1


def naive(rng):
    left, refused = P.log().clone(), 0.0
    for k in range(4):
        x = int(rng.at("draw", inner=k).categorical(left)[0])
        if VALID[x]:
            return x, refused
        refused += float(P[0, x])
        left[0, x] = -math.inf
    raise AssertionError


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "recursive"},
        {"method": "geometric", "max_refused": 1},
        *({"method": "geometric", "max_accepts": m} for m in (2, 4, 8)),
    ],
    ids=str,
)
def test_the_mean_weight_and_its_law(settings):
    """40,000 particles: |z| < 4.9 for each token and the sum; an error of 3 % of the mass would be seen."""
    n = 40_000
    token, log_weight, calls = draw(Rng(3), P.log().expand(n, 4), made_of(VALID), **settings)
    w = log_weight.exp()
    for x in range(4):
        mine = w * (token == x)
        se = float(mine.std()) / math.sqrt(n)
        assert abs(float(mine.mean()) - float(P[0, x] * VALID[x])) <= 4.9 * se < 0.012
    assert int(calls.max()) <= 4, "no token is tested twice"
    if settings["method"] == "recursive":
        assert float(calls.double().mean()) < 3.1


def test_more_accepted_draws_vary_less():
    sd = []
    for m in (2, 4, 8):
        _, log_weight, _ = draw(Rng(0), P.log().expand(20_000, 4), made_of(VALID), method="geometric", max_accepts=m)
        sd.append(float(log_weight.exp().std()))
    assert sd[0] > 1.3 * sd[1] > 1.5 * sd[2]


@pytest.mark.parametrize("method", ["recursive", "geometric"])
def test_a_dead_end_has_weight_zero_and_mass_counts(method):
    nothing = torch.zeros(4, dtype=torch.bool)
    token, log_weight, calls = draw(Rng(0), P.log().expand(5, 4), made_of(nothing), method=method)
    assert (token == -1).all() and torch.isneginf(log_weight).all() and (calls == 4).all()
    _, log_weight, _ = draw(Rng(0), P.log() - 3.0, made_of(~nothing), method=method)
    assert float(log_weight[0]) == pytest.approx(-3.0, abs=1e-12)
    token, log_weight, _ = draw(Rng(0), torch.full((2, 4), -torch.inf).double(), made_of(~nothing), method=method)
    assert (token == -1).all() and torch.isneginf(log_weight).all()


def test_a_valid_token_of_tiny_mass_keeps_its_digits():
    log_prob = torch.log_softmax(torch.tensor([[0.0, -50.0, -51.0]], dtype=torch.float64), -1)
    valid = torch.tensor([False, True, True])
    token, log_weight, _ = draw(Rng(1), log_prob.expand(400, 3), made_of(valid), method="recursive")
    assert set(token.tolist()) == {1, 2}
    expected = log_prob[0, 1:].logsumexp(0).expand(400)  # the large token is refused, and both others are valid
    torch.testing.assert_close(log_weight, expected, rtol=0, atol=1e-10)


def test_a_particle_draws_the_same_alone():
    law = torch.log_softmax(torch.arange(20.0).double().reshape(5, 4).sin(), -1)
    for method in ("recursive", "geometric"):
        whole = draw(Rng(5), law, made_of(VALID), method=method)
        for i in range(5):
            alone = draw(Rng(5), law[i : i + 1], made_of(VALID), method=method, ids=torch.tensor([i]))
            assert all(torch.equal(a[i : i + 1], b) for a, b in zip(whole, alone, strict=True))


@pytest.mark.parametrize("method", ["recursive", "geometric"])
def test_no_more_tokens_are_refused_than_the_limit_says(method):
    """Draws of what is already refused are free: of two that are refused with 0.9998, one test each is enough."""
    law = torch.tensor([[0.9, 0.0998, 0.0001, 0.0001]], dtype=torch.float64).log().expand(50, 4)
    token, log_weight, calls = draw(Rng(0), law, lambda row, token: token == 4, method=method, max_refused=2)
    assert (calls == 2).all() and (token == -1).all() and torch.isneginf(log_weight).all()
    token, _, _ = draw(Rng(0), law, lambda row, token: token >= 2, method=method, max_refused=3)
    assert (token >= 2).all()


def test_arguments_out_of_range():
    with pytest.raises(UnknownName, match="geometric"):
        draw(Rng(0), P.log(), made_of(VALID), method="fast")
    with pytest.raises(MotesError, match="max_accepts"):
        draw(Rng(0), P.log(), made_of(VALID), max_accepts=1)
    with pytest.raises(MotesError, match="max_rejects"):
        draw(Rng(0), P.log(), made_of(VALID), max_rejects=0)
    with pytest.raises(MotesError, match="max_refused must be None or"):
        draw(Rng(0), P.log(), made_of(VALID), max_refused=0)
    with pytest.raises(ShapeError, match="float64"):
        draw(Rng(0), P.log().float(), made_of(VALID))
    with pytest.raises(ShapeError, match="bool"):
        draw(Rng(0), P.log(), lambda row, token: token)
