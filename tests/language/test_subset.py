"""Places filled several at a time have the law of places filled one by one."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch

import motes
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.language.speculation import single, subset
from motes.testing import enumerate_runs

V, T = 2, 4
STATES = list(itertools.product(range(-1, V), repeat=T))
CODE = torch.tensor([(V + 1) ** j for j in range(T)])
TABLE = motes.Rng(1).at("table").normal((len(STATES), T * V)).double().reshape(-1, T, V).mul(1.3).log_softmax(-1)
"""Conditionals of every place given every set of others: they fit together to no joint law, so the order matters."""


def model(tokens: torch.Tensor) -> torch.Tensor:
    return TABLE[((tokens + 1) * CODE).sum(1)]


def one_by_one(start: list[int], order: list[int]) -> dict[tuple[int, ...], float]:
    law = {tuple(start): 1.0}
    for place in (s for s in order if start[s] < 0):
        after = {}
        for text, p in law.items():
            chance = model(torch.tensor([text]))[0, place].exp().tolist()
            for v in range(V):
                after[(*text[:place], v, *text[place + 1 :])] = p * chance[v]
        law = after
    return law


def filled_law(start: list[int], order: list[int], drafts: int):
    law, most = defaultdict(float), 0

    def run(rng):
        found = subset.fill(rng, model, torch.tensor([start]), order=torch.tensor(order), drafts=drafts)
        return tuple(found.tokens[0].tolist()), found.calls

    for probability, (text, calls) in enumerate_runs(run):
        law[text] += probability
        most = max(most, calls)
    return law, most


def distance(a, b) -> float:
    return max(abs(a.get(t, 0.0) - b.get(t, 0.0)) for t in {*a, *b})


MASKED = [-1] * T


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
@pytest.mark.parametrize("drafts", [1, 2, 3, 10])
def test_every_outcome_has_the_law_of_one_by_one(order, drafts):
    law, calls = filled_law(MASKED, order, drafts)
    assert distance(law, one_by_one(MASKED, order)) < 1e-12
    assert calls <= T


def test_known_places_are_left_as_they_are():
    start, order = [-1, 1, -1, -1], [3, 1, 0, 2]
    law, calls = filled_law(start, order, 2)
    assert all(text[1] == 1 for text in law)
    assert distance(law, one_by_one(start, order)) < 1e-12
    assert calls <= 3


def test_the_order_matters_here():
    assert distance(one_by_one(MASKED, [0, 1, 2, 3]), one_by_one(MASKED, [2, 0, 3, 1])) > 0.01


def test_drafts_that_are_all_accepted_are_seen(monkeypatch):
    """The broken twin: places of a round are taken to be independent."""

    def wrong(rng, ids, log_p, log_q, drafts, count):
        return single.verify(rng, ids, torch.cat([log_q, log_p[:, -1:]], 1), log_q, drafts, count)

    monkeypatch.setattr(subset, "verify", wrong)
    law, _ = filled_law(MASKED, [0, 1, 2, 3], 3)
    assert distance(law, one_by_one(MASKED, [0, 1, 2, 3])) > 0.01


def test_a_batch_is_its_texts_one_by_one():
    """Texts with different places masked, in orders of their own; the first draft of a round is always accepted."""
    rng = motes.Rng(5)
    tokens = torch.where(rng.at("masked").uniform((64, T)) < 0.7, -1, rng.at("known").integers((64, T), V))
    order = torch.argsort(rng.at("order").uniform((64, T)), dim=1)
    both = subset.fill(rng.at("fill"), model, tokens, order=order, drafts=2)
    assert both.calls <= int((tokens < 0).sum(1).max())
    assert bool((both.accepted >= (both.drafted > 0).long()).all())
    assert torch.equal(torch.where(tokens < 0, both.tokens, tokens), both.tokens)
    for i in range(64):
        ids = torch.tensor([i])
        alone = subset.fill(rng.at("fill"), model, tokens[i : i + 1], order=order[i : i + 1], drafts=2, ids=ids)
        assert torch.equal(alone.tokens[0], both.tokens[i])
        assert torch.equal(alone.accepted[0], both.accepted[i])


def test_independent_places_take_two_calls_a_round():
    """A model whose places know nothing of one another: nine places in two rounds, and each draft is accepted."""

    def free(tokens):
        return torch.zeros(*tokens.shape, 3)

    found = subset.fill(motes.Rng(0), free, torch.full((5, 9), -1), drafts=4)
    assert found.calls == 4 and found.rows == 5 * (1 + 4 + 1 + 3)
    assert torch.equal(found.accepted, found.drafted) and bool((found.tokens >= 0).all())
    assert subset.fill(motes.Rng(0), free, torch.zeros(2, 3, dtype=torch.int64)).calls == 0


def test_drafts_that_cannot_stand_together_do_no_harm():
    """Conditionals of a joint law with zeros: behind impossible drafts the model says NaN, and nobody asks."""
    joint = {(0, 0, 0): 0.3, (0, 0, 1): 0.1, (1, 1, 0): 0.4, (1, 1, 1): 0.2}

    def conditionals(tokens):
        out = torch.zeros(*tokens.shape, 2, dtype=torch.float64)
        for i, text in enumerate(tokens.tolist()):
            for t, p in joint.items():
                for place in range(3):
                    others = (a < 0 or a == b for j, (a, b) in enumerate(zip(text, t, strict=True)) if j != place)
                    out[i, place, t[place]] += p * all(others)
        return (out / out.sum(-1, keepdim=True)).log()

    law = defaultdict(float)

    def run(rng):
        return tuple(subset.fill(rng, conditionals, torch.full((1, 3), -1)).tokens[0].tolist())

    for probability, text in enumerate_runs(run):
        law[text] += probability
    assert distance(law, joint) < 1e-12


@pytest.mark.parametrize(
    "change, error, what",
    [
        ({"drafts": 0}, MotesError, "at least 1"),
        ({"order": torch.tensor([0, 1, 1, 3])}, MotesError, "once"),
        ({"order": torch.tensor([0, 1])}, ShapeError, "order"),
        ({"tokens": torch.full((1, T), -2)}, MotesError, "-1"),
        ({"tokens": torch.zeros(T, dtype=torch.int64)}, ShapeError, "tokens"),
        ({"model": lambda tokens: tokens}, ShapeError, "masked model"),
        ({"model": lambda tokens: TABLE[:1] * torch.nan}, NanLogPotential, "particle .7"),
    ],
)
def test_wrong_arguments_are_refused(change, error, what):
    job = {"model": model, "tokens": torch.tensor([MASKED]), "ids": torch.tensor([7]), **change}
    with pytest.raises(error, match=what):
        subset.fill(motes.Rng(0), **job)
