"""The best pick among several drafts: its law and its rate, which no scheme can exceed."""

from __future__ import annotations

import itertools

import pytest
import torch

import motes
from motes.errors import MotesError
from motes.language.speculation import optimal, recursive, sequential
from motes.testing import enumerate_runs

P = torch.tensor([0.5, 0.2, 0.05, 0.25], dtype=torch.float64)
Q = torch.tensor([0.15, 0.45, 0.3, 0.1], dtype=torch.float64)
NEAR = torch.tensor([0.2, 0.4, 0.25, 0.15], dtype=torch.float64)
"""So near to Q that two drafts always hold a token of this law."""


def outcome_law(p: torch.Tensor, k: int, select=optimal.select):
    law, hit = torch.zeros(len(p), dtype=torch.float64), 0.0

    def run(rng):
        drafts = torch.stack([rng.at("draft", inner=i).categorical(Q.log()[None]) for i in range(k)], 1)
        token, which = select(rng, p[None], Q[None], drafts)
        assert which[0] < 0 or drafts[0, which[0]] == token[0]
        return int(token[0]), int(which[0])

    for probability, (token, which) in enumerate_runs(run):
        law[token] += probability
        hit += probability * (which >= 0)
    return law, hit


@pytest.mark.parametrize("p", [P, NEAR, Q], ids=["far", "near", "equal"])
@pytest.mark.parametrize("k", [1, 2])
def test_every_outcome_has_the_law_and_the_best_rate(p, k):
    law, hit = outcome_law(p, k)
    torch.testing.assert_close(law, p, rtol=0, atol=1e-12)
    assert hit == pytest.approx(float(optimal.rate(p, Q, k)), abs=1e-12)
    if p is NEAR and k == 2:
        assert hit == pytest.approx(1, abs=1e-12)


def test_a_pick_that_is_always_the_highest_is_seen(monkeypatch):
    """The broken twin: every boundary cuts for ever, so the pick has another law than it is corrected for."""
    real = optimal.cuts

    def wrong(ratio, q, k):
        order, end = real(ratio, q, k)
        return order, torch.ones_like(end)

    monkeypatch.setattr(optimal, "cuts", wrong)
    law, _ = outcome_law(NEAR, 2)
    assert float((law - NEAR).abs().max()) > 0.005


def law_of_pick(ratio: torch.Tensor, q: torch.Tensor, k: int) -> torch.Tensor:
    """Over all tuples of drafts and all stretches of the uniform number."""
    order, end = optimal.cuts(ratio, q, k)
    levels = sorted({0.0, 1.0, *(e for e in end.tolist() if e < 1)})
    tuples = torch.tensor(list(itertools.product(order.tolist(), repeat=k)))
    law = torch.zeros_like(q)
    for a, b in itertools.pairwise(levels):
        block = torch.zeros(len(q), dtype=torch.int64)
        block[order[1:]] = (end > (a + b) / 2).cumsum(0)
        first = block[tuples].argmax(1)
        law.index_add_(0, tuples[torch.arange(len(tuples)), first], q[tuples].prod(1) * (b - a))
    return law


def random_laws(count: int, rng: motes.Rng):
    """Laws of 1 to 6 tokens: flat and peaked, with tokens that only one of them has, and near to one another."""
    for i in range(count):
        r = rng.at(f"law-{i}")
        V, k = 1 + int(r.at("size").integers((1,), 6)), 1 + i % 4
        sharp = (0.3, 1.0, 3.0)[i % 3]
        p, q = (sharp * r.at("weights").normal((2, V))).softmax(1).double()
        gone = r.at("gone").uniform((V,)) < 0.3
        if i % 5 == 1:
            q = torch.where(gone, 0.0, q) if not gone.all() else q
        elif i % 5 == 2:
            p = torch.where(gone, 0.0, p) if not gone.all() else p
        elif i % 5 == 3:
            p = 0.8 * q + 0.2 * p
        yield p / p.sum(), q / q.sum(), k


def test_random_laws_are_picked_at_the_best_rate():
    certain = 0
    for p, q, k in random_laws(200, motes.Rng(7)):
        s = optimal.picked(p, q, k)
        best = float(optimal.rate(p, q, k))
        assert float(s.sum()) == pytest.approx(1, abs=1e-14)
        assert float(torch.minimum(p, s).sum()) == pytest.approx(best, abs=1e-13)
        law = law_of_pick(torch.where(q > 0, s / q.clamp(min=1e-300), torch.inf), q, k)
        torch.testing.assert_close(law, s, rtol=0, atol=1e-13)
        for other in (recursive, sequential):
            assert float(other.rate(p, q, k)) <= best + 1e-12
        certain += best > 1 - 1e-12
    assert 20 < certain < 180


def test_two_drafts_hold_the_token_exactly_under_the_condition_on_sets():
    """The rate is 1 if and only if P(H) >= Q(H)^2 for every set H of tokens."""
    for p, q, _ in random_laws(100, motes.Rng(8)):
        sets = [list(h) for r in range(len(p) + 1) for h in itertools.combinations(range(len(p)), r)]
        holds = all(float(p[h].sum() - q[h].sum() ** 2) >= -1e-13 for h in sets)
        assert holds == (float(optimal.rate(p, q, 2)) > 1 - 1e-12)


def test_a_large_vocabulary_keeps_its_law():
    """30,000 rows, 3 drafts of 200 tokens: |z| < 4.9 for 20 groups of tokens and the rate; 1.5 points would be seen."""
    n, V, rng = 30_000, 200, motes.Rng(3)
    p, q = (2 * rng.at("laws").normal((2, V))).softmax(1).double()
    p = 0.7 * p + 0.3 * q
    s = optimal.picked(p, q, 3)
    order, end = optimal.cuts(s / q, q, 3)
    assert float(torch.minimum(p, s).sum()) == pytest.approx(float(optimal.rate(p, q, 3)), abs=1e-13)
    drafts = torch.stack([rng.at("draft", inner=i).categorical(q.log().expand(n, V)) for i in range(3)], 1)

    def same(ratio, law, k):
        return order, end

    with pytest.MonkeyPatch.context() as patch:  # all rows have one law
        patch.setattr(optimal, "cuts", same)
        token, which = optimal.select(rng, p.expand(n, V), q.expand(n, V), drafts)
    got = torch.bincount(token % 20, minlength=20).double() / n
    expected = torch.zeros(20, dtype=torch.float64).index_add_(0, torch.arange(V) % 20, p)
    z = (got - expected) / (expected * (1 - expected) / n).sqrt()
    assert float(z.abs().max()) < 4.9
    best = float(optimal.rate(p, q, 3))
    assert abs(float((which >= 0).double().mean()) - best) < 4.9 * (best * (1 - best) / n) ** 0.5


def test_no_draft_is_refused():
    with pytest.raises(MotesError, match="at least one draft"):
        optimal.select(motes.Rng(0), P[None], Q[None], torch.zeros(1, 0, dtype=torch.int64))
