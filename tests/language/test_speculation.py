"""Schemes of speculation keep the law, by enumeration, at rates with closed forms."""

from __future__ import annotations

import itertools

import pytest
import torch

import motes
from language.tables import TABLE
from motes.language.speculation import block, coupled, optimal, recursive, sequential, single
from motes.testing import enumerate_runs

P = torch.tensor([0.5, 0.2, 0.05, 0.25], dtype=torch.float64)
Q = torch.tensor([0.15, 0.45, 0.3, 0.1], dtype=torch.float64)
SMALL = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [1 / 3, 1 / 3, 1 / 3], [0.4, 0.3, 0.3]], dtype=torch.float64)


# ---------------------------------------------------------------- several drafts of one token


def selected(select, k: int):
    """The law of the token and the probability that it is a draft, over every outcome."""
    law, hit = torch.zeros(4, dtype=torch.float64), 0.0

    def run(rng):
        drafts = torch.stack([rng.at("draft", inner=i).categorical(Q.log()[None]) for i in range(k)], 1)
        token, which = select(rng, P[None], Q[None], drafts)
        return int(token[0]), int(which[0])

    for probability, (token, which) in enumerate_runs(run):
        law[token] += probability
        hit += probability * (which >= 0)
    return law, hit


@pytest.mark.parametrize("module", [recursive, sequential])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_several_drafts_keep_the_law_at_their_closed_rate(module, k):
    law, hit = selected(module.select, k)
    best = float(optimal.rate(P, Q, k))
    torch.testing.assert_close(law, P, rtol=0, atol=1e-12)
    assert hit == pytest.approx(float(module.rate(P, Q, k)), abs=1e-12)
    assert hit <= best + 1e-12
    if k == 1:
        assert hit == pytest.approx(float(single.rate(P, Q)), abs=1e-9) == pytest.approx(best, abs=1e-9)


def test_drafts_that_are_not_from_q_are_seen():
    def wrong(rng, p, q, drafts):
        return recursive.select(rng, p, q.flip(1), drafts)

    law, _ = selected(wrong, 2)
    assert float((law - P).abs().max()) > 0.01


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_best_rate_is_that_of_the_linear_program(k):
    from scipy.optimize import linprog

    outcomes = list(itertools.product(range(4), repeat=k))
    chance = [float(torch.prod(Q[list(o)])) for o in outcomes]
    cells = [(v, j) for j, o in enumerate(outcomes) for v in sorted(set(o))]
    a_ub = torch.zeros(4 + len(outcomes), len(cells))
    for c, (v, j) in enumerate(cells):
        a_ub[v, c] = a_ub[4 + j, c] = 1
    found = linprog(-torch.ones(len(cells)).numpy(), a_ub.numpy(), [*P.tolist(), *chance])
    assert float(optimal.rate(P, Q, k)) == pytest.approx(-found.fun, abs=1e-9)


def test_coupled_rates_are_what_shared_numbers_give():
    """5e5 pairs; 4.9 standard errors are 0.0035."""
    n, rng = 500_000, motes.Rng(4)
    noise = rng.at("gumbel").gumbel((n, 4))
    agree = ((P.log() + noise).argmax(1) == (Q.log() + noise).argmax(1)).double().mean()
    assert abs(float(agree - coupled.gumbel_rate(P, Q))) < 0.0035
    both = [rng.at("u").categorical(law.log().expand(n, 4)) for law in (P, Q)]
    agree = (both[0] == both[1]).double().mean()
    assert abs(float(agree - coupled.inversion_rate(P, Q))) < 0.0035
    for rate in (coupled.gumbel_rate, coupled.inversion_rate):
        assert float(rate(P, Q)) <= float(single.rate(P, Q))
        assert float(rate(P, P)) == pytest.approx(1)


# ---------------------------------------------------------------- several tokens


def joint_law(verify, counted: int) -> torch.Tensor:
    """The law (3, 3, 3) of three tokens: two drafts of which `counted` count, verified, then plain draws."""
    law = torch.zeros(3, 3, 3, dtype=torch.float64)
    big, little = TABLE.exp().roll(1, 1).log(), SMALL.log()

    def run(rng):
        text = []
        for j in range(2):
            text.append(int(rng.at("draft", inner=j).categorical(little[text[-1] if text else -1][None])[0]))
        seen = [-1, *text]
        log_p, log_q = big[seen][None], little[seen[:2]][None]
        accepted, token = verify(rng, torch.tensor([0]), log_p, log_q, torch.tensor([text]), torch.tensor([counted]))
        out = [*text[: int(accepted[0])], int(token[0])]
        while len(out) < 3:
            out.append(int(rng.at("after", inner=len(out)).categorical(big[out[-1]][None])[0]))
        return tuple(out)

    for probability, text in enumerate_runs(run):
        law[text] += probability
    return law


def plain_law() -> torch.Tensor:
    p = TABLE.exp().roll(1, 1)
    return p[-1][:, None, None] * p[:3, :, None] * p[None, :3]


@pytest.mark.parametrize("module", [single, block])
@pytest.mark.parametrize("counted", [0, 1, 2])
def test_verified_drafts_have_the_law_of_plain_draws(module, counted):
    torch.testing.assert_close(joint_law(module.verify, counted), plain_law(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("module", [single, block])
def test_a_verification_that_forgets_to_correct_is_seen(monkeypatch, module):
    def wrong(rng, ids, log_p, log_q, accepted, count, scale):
        return rng.at("rest").shard(ids).categorical(log_p[torch.arange(len(ids)), accepted])

    monkeypatch.setattr(module, "next_token", wrong)
    assert float((joint_law(module.verify, 2) - plain_law()).abs().max()) > 0.005


def test_a_dead_end_has_no_next_token():
    log_p = torch.full((1, 2, 4), -torch.inf, dtype=torch.float64)
    accepted, token = single.verify(
        motes.Rng(0), torch.tensor([0]), log_p, Q.log()[None, None], torch.tensor([[1]]), torch.tensor([1])
    )
    assert accepted.tolist() == [0]
    assert token.tolist() == [-1]


def test_block_verification_accepts_at_least_as_many():
    log_p = torch.stack([P, P.flip(0), P.roll(1), P]).log()[None]
    log_q = torch.stack([Q, Q.roll(2), Q.flip(0)]).log()[None]
    mean = {}
    for module in (single, block):
        total = 0.0

        def run(rng, verify=module.verify):
            drafts = torch.stack([rng.at("draft", inner=j).categorical(log_q[:, j]) for j in range(3)], 1)
            return int(verify(rng, torch.tensor([0]), log_p, log_q, drafts, torch.tensor([3]))[0][0])

        for probability, accepted in enumerate_runs(run):
            total += probability * accepted
        mean[module] = total
    a = single.rate(log_p[0, :3].exp(), log_q[0].exp())
    assert mean[single] == pytest.approx(float(a.cumprod(0).sum()), abs=1e-12)
    assert mean[block] > mean[single] + 0.01
