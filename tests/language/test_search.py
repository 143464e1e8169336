"""Searches against the enumerated table model and transformers; decisions and best-of-n against closed forms."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch

import motes
from language.tables import TABLE, exact, spell, table, texts
from motes.errors import EmptyConstraint, MotesError
from motes.language import TableModel, predicate, regex, temperature, top_k
from motes.language.search import (
    Arithmetic,
    PoissonBeam,
    StochasticBeam,
    bayes_risk,
    beam_search,
    best_of_n_bound,
    best_of_n_divergence,
    best_of_n_estimate,
    best_of_n_law,
    dynamic_beam,
    greedy,
    information_search,
    p_exact,
    priority_sampling,
    vote,
)


def best(law: dict[tuple[int, ...], float]) -> tuple[int, ...]:
    return max(law, key=lambda text: law[text])


def greedy_text(max_tokens: int) -> tuple[int, ...]:
    text: tuple[int, ...] = ()
    while len(text) < max_tokens and (not text or text[-1] != 2):
        text = (*text, int(TABLE[text[-1] if text else -1].argmax()))
    return text


@pytest.mark.parametrize("max_tokens", [1, 3, 5])
def test_p_exact_goes_from_greedy_to_the_most_probable_text(max_tokens):
    law = exact(max_tokens)
    found = p_exact(table(), "", p=1.0, max_tokens=max_tokens)
    assert found.tokens == [best(law)]
    assert float(found.log_prob[0]) == pytest.approx(math.log(law[best(law)]), abs=1e-12)
    assert p_exact(table(), "", p=1e-9, max_tokens=max_tokens).tokens == [greedy_text(max_tokens)]


@pytest.mark.parametrize("p", [0.3, 0.6, 0.75, 0.9])
def test_p_exact_is_the_best_text_of_the_pruned_tree(p):
    def inside(text):
        for i, v in enumerate(text):
            row = TABLE[text[i - 1] if i else -1].exp().double()
            order = torch.sort(row, descending=True, stable=True).indices.tolist()
            before = sum(float(row[w]) for w in order[: order.index(v)])
            if before >= p - 1e-12:
                return False
        return True

    law = {text: math.prod(q) for text, q in texts(5) if inside(text)}
    found = p_exact(table(), "", p=p, max_tokens=5)
    assert float(found.log_prob[0]) == pytest.approx(math.log(max(law.values())), abs=1e-12)
    assert inside(found.tokens[0])


def test_p_exact_says_when_the_tree_is_too_large():
    with pytest.raises(MotesError, match="most=2"):
        p_exact(table(), "", p=1.0, max_tokens=8, most=2)


def test_a_dynamic_beam_is_exhaustive_at_one_and_greedy_at_zero():
    law = exact(4)
    found = dynamic_beam(table(), "", p=1.0, max_tokens=4, most=1000)
    assert dict(zip(found.tokens, found.log_prob.exp().tolist(), strict=True)) == pytest.approx(law)
    assert found.log_prob.tolist() == sorted(found.log_prob.tolist(), reverse=True)
    assert dynamic_beam(table(), "", p=1e-9, max_tokens=4).tokens == [greedy_text(4)]
    assert 1 < len(dynamic_beam(table(), "", p=0.6, max_tokens=4)) < len(law)


def test_a_wide_beam_finds_every_text_in_order():
    law = exact(4)
    found = beam_search(table(), "", width=200, max_tokens=4, length_penalty=0.0)
    assert dict(zip(found.tokens, found.score.exp().tolist(), strict=True)) == pytest.approx(law)
    assert greedy(table(), "", max_tokens=4).tokens == [greedy_text(4)]


def test_searches_keep_to_constraints_and_rules():
    pattern = "(ab)+"
    for found in (
        beam_search(table(), "", width=3, constraint=regex(pattern), max_tokens=5),
        dynamic_beam(table(), "", p=0.9, constraint=regex(pattern), max_tokens=5),
        p_exact(table(), "", p=1.0, constraint=regex(pattern), rules=temperature(0.7), max_tokens=5),
    ):
        assert found.texts and all(re.fullmatch(pattern, text) for text in found.texts)
    with pytest.raises(EmptyConstraint):
        beam_search(table(), "", width=2, constraint=regex("a{9}"), max_tokens=3)


@pytest.mark.parametrize("width, penalty, early", [(1, 1.0, True), (3, 1.0, False), (4, 0.0, False), (4, 1.7, True)])
def test_beam_search_is_that_of_transformers(tiny, width, penalty, early):
    prompt = "the cat"
    ids = tiny.encode(prompt)[None]
    out = tiny.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=width,
        num_return_sequences=width,
        do_sample=False,
        max_new_tokens=9,
        length_penalty=penalty,
        early_stopping=early,
        pad_token_id=1,
        eos_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
    )
    theirs = []
    for row in out.sequences[:, ids.shape[1] :].tolist():
        theirs.append(tuple(row[: row.index(1) + 1] if 1 in row else row))
    found = beam_search(tiny, prompt, width=width, max_tokens=9, length_penalty=penalty, early_stopping=early)
    assert found.tokens == theirs
    if width > 1:
        torch.testing.assert_close(found.score.float(), out.sequences_scores, rtol=1e-4, atol=1e-4)


def test_votes_are_shares_of_weight():
    answers = ["4", " 4", "5", "x"]
    weight = torch.tensor([0.1, 0.2, 0.6, 0.1], dtype=torch.float64).log()
    assert vote(answers, log_weight=weight).answer == "5"
    heads = vote(answers, key=lambda t: int(t) if t.strip().isdigit() else None)
    assert heads.answer == "4" and heads.value == pytest.approx(2 / 3)
    assert vote(answers, log_weight=weight).ess == pytest.approx(1 / 0.42)
    with pytest.raises(MotesError, match="abstains"):
        vote(answers, key=lambda _: None)


def test_minimum_bayes_risk_is_a_vote_or_a_mean():
    numbers, weight = ["1", "2", "3", "9"], torch.tensor([0.3, 0.1, 0.2, 0.4], dtype=torch.float64)
    match = bayes_risk(numbers, weight.log(), lambda a, b: float(a == b))
    assert match.answer == vote(numbers, log_weight=weight.log()).answer == "9"
    assert match.values.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    squares = bayes_risk(numbers, weight.log(), lambda a, b: -((float(a) - float(b)) ** 2))
    mean = float((weight * torch.tensor([1.0, 2.0, 3.0, 9.0])).sum())
    assert squares.answer == min(numbers, key=lambda t: abs(float(t) - mean))
    assert bayes_risk(numbers, None, lambda a, b: -((float(a) - float(b)) ** 2)).answer == "3"
    assert bayes_risk(numbers, weight.log(), lambda a, b: -abs(float(a) - float(b)), candidates=["5"]).answer == "5"


def test_the_winners_law_of_best_of_n_is_that_of_all_tuples():
    reward, p = torch.tensor([1.0, 0.0, 2.0, 1.0]), torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64)
    for n in (1, 2, 4):
        truth = [0.0] * 4
        for draws in itertools.product(range(4), repeat=n):
            winner = max(draws, key=lambda i: float(reward[i]))  # the first of the best
            truth[winner] += math.prod(float(p[i]) for i in draws)
        assert best_of_n_law(reward, p.log(), n).exp().tolist() == pytest.approx(truth, abs=1e-12)
    assert best_of_n_law(reward, p.log(), 1).exp().tolist() == pytest.approx(p.tolist())


def test_the_divergence_of_best_of_n_has_its_published_numbers():
    three = torch.zeros(3, dtype=torch.float64)
    assert best_of_n_divergence(torch.arange(3.0), three, 16) == pytest.approx(1.0872, abs=1e-4)
    assert best_of_n_bound(16) == pytest.approx(1.8351, abs=1e-4)
    law = best_of_n_law(torch.arange(3.0), three, 16).exp()
    estimate = float((law * best_of_n_estimate(torch.full((3,), 1 / 3).double(), 16)).sum())
    assert estimate == pytest.approx(1.0890, abs=1e-4)
    atom = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    assert best_of_n_divergence(torch.tensor([0.0, 1.0]), atom, 16) == pytest.approx(0.693, abs=1e-3)
    many = torch.zeros(20000, dtype=torch.float64)
    assert best_of_n_divergence(torch.arange(20000.0), many, 16) == pytest.approx(best_of_n_bound(16), abs=1e-2)
    assert best_of_n_divergence(torch.zeros(3), three, 16) == pytest.approx(0, abs=1e-12)


KNOBS = [
    lambda m: beam_search(m, "", width=0),
    lambda m: p_exact(m, "", p=0.0),
    lambda m: dynamic_beam(m, "", p=0.5, most=0),
    lambda m: priority_sampling(m, "", 3, priority="best"),
]


@pytest.mark.parametrize("call", KNOBS)
def test_wrong_knobs_are_refused(call):
    with pytest.raises(MotesError, match=r"must|no priority"):
        call(table())


def test_spelling_is_that_of_the_model():
    found = beam_search(table(), "", width=2, max_tokens=3)
    assert found.texts == [spell(t) for t in found.tokens]


@pytest.mark.parametrize("priority", ["token", "joint"])
def test_priority_sampling_lists_every_text_once_greedy_first(priority):
    law = exact(3)
    found = priority_sampling(table(), "", 1000, priority=priority, max_tokens=3)
    assert found.tokens[0] == greedy_text(3)
    assert len(found) == len(law) and set(found.tokens) == set(law)
    assert found.log_prob.exp().tolist() == pytest.approx([law[t] for t in found.tokens])
    few = priority_sampling(table(), "", 4, priority=priority, max_tokens=3)
    assert few.tokens == found.tokens[:4]


def test_priorities_of_tokens_and_of_prefixes_differ():
    """By hand: "aa" first; by token next "a." (0.3 > 0.25 of "b"), by prefix "b" (0.25 > 0.21)."""
    by = {p: priority_sampling(table(), "", 2, priority=p, max_tokens=2).tokens for p in ("token", "joint")}
    assert by["token"] == [(0, 0), (0, 2)]
    assert by["joint"] == [(0, 0), (1, 1)]


def test_priority_sampling_keeps_to_a_constraint():
    found = priority_sampling(table(), "", 50, constraint=regex("(ab)+|b"), max_tokens=4)
    assert set(found.texts) == {"ab", "abab", "b"} and len(found) == len(exact(4, "(ab)+|b"))


def test_priority_sampling_evaluates_the_prompt_once_and_each_text_but_its_last_token():
    model = table()
    found = priority_sampling(model, "", 6, max_tokens=4)
    assert model.evaluations == 1 + sum(len(text) - 1 for text in found.tokens)


def ends_well(text: str) -> bool:
    return "aa" not in text and text.endswith("b")


TESTED = predicate(lambda text: "aa" not in text, complete=ends_well)


def test_constraints_that_are_asked_token_by_token_hold_in_every_search():
    """The tree that is left: the mass of tokens that would only lead to refused texts later stays with them."""
    law = {text for text in exact(4) if ends_well(spell(text))}
    wide = beam_search(table(), "", width=200, constraint=TESTED, max_tokens=4, length_penalty=0.0)
    dynamic = dynamic_beam(table(), "", p=1.0, constraint=TESTED, max_tokens=4, most=1000)
    listed = priority_sampling(table(), "", 1000, constraint=TESTED, max_tokens=4)
    assert set(wide.tokens) == set(dynamic.tokens) == set(listed.tokens) == law
    best_one = p_exact(table(), "", p=1.0, constraint=TESTED, max_tokens=4)
    assert best_one.tokens[0] == wide.tokens[0]
    inside = p_exact(table(), "", p=1.0, constraint=regex("b|[ab]b|[ab]{3}") & TESTED, max_tokens=4)
    assert ends_well(inside.texts[0])
    informed = information_search(table(), "", "", seed=0, constraint=TESTED, max_tokens=4)
    assert all(ends_well(text) for text in informed.texts)


@pytest.mark.parametrize("cls", [Arithmetic, StochasticBeam, PoissonBeam])
def test_constraints_that_are_asked_token_by_token_are_weighed(cls):
    """A place for every text: the normaliser is exact. With 4 places, unbiased (60 runs). The mask alone is wrong."""
    truth = sum(p for text, p in exact(4).items() if ends_well(spell(text)))
    z = []
    for seed in range(60):
        run = motes.sample(cls(table(), "", constraint=TESTED, max_tokens=4), 8, seed=seed, progress=False)
        z.append(math.exp(run.log_evidence))
    found = torch.tensor(z, dtype=torch.float64)
    assert abs(float((found.mean() - truth) / (found.std() / 60**0.5 + 1e-12))) < 4.9
    if cls is not Arithmetic:
        run = motes.sample(cls(table(), "", constraint=TESTED, max_tokens=4), 64, seed=0, progress=False)
        assert math.exp(run.log_evidence) == pytest.approx(truth, abs=1e-6)
    assert abs(truth - 1) > 0.1  # what is found if nothing is asked


def test_a_search_says_when_there_are_too_many_tokens_to_ask_about():
    many = TableModel([f"{i} " for i in range(5000)] + ["."], lambda text: torch.zeros(5001))
    odd = predicate(lambda text: not text.startswith("0"))
    with pytest.raises(MotesError, match=r"top_k.*motes\.Generation"):
        beam_search(many, "", width=2, constraint=odd, max_tokens=2)
    found = beam_search(many, "", width=2, constraint=odd, rules=top_k(5), max_tokens=2)
    assert len(found) == 2 and not found.texts[0].startswith("0")


def log_probability(model, prompt: str, tokens: tuple[int, ...]) -> float:
    prefixes, out = model.prefixes(model.encode(prompt), len(tokens)), 0.0
    for v in tokens:
        out += float(torch.log_softmax(prefixes.logits.double(), -1)[0, v])
        prefixes.extend(torch.zeros(1, dtype=torch.int64), torch.tensor([v]))
    return out


def test_the_information_of_a_text_adds_up_over_its_tokens(tiny):
    found = information_search(tiny, "the cat", "a", seed=0, width=3, samples=3, step=2, max_tokens=6)
    assert 1 <= len(found) <= 3 and len(set(found.tokens)) == len(found)
    for tokens, score in zip(found.tokens, found.score.tolist(), strict=True):
        truth = log_probability(tiny, "the cat", tokens) - log_probability(tiny, "a", tokens)
        assert score == pytest.approx(truth, abs=1e-3)
    again = information_search(tiny, "the cat", "a", seed=0, width=3, samples=3, step=2, max_tokens=6)
    assert again.tokens == found.tokens
    narrow = information_search(tiny, "the cat", "a", seed=0, width=1, samples=1, step=2, max_tokens=6)
    assert float(found.score[0]) != pytest.approx(float(narrow.score[0]))


def test_a_question_that_makes_no_difference_informs_about_nothing():
    found = information_search(table(), "", "", seed=1, constraint=regex("(ab)+"), max_tokens=6)
    assert found.score.tolist() == pytest.approx([0.0] * len(found))
    assert all(re.fullmatch("(ab)+", text) for text in found.texts)


def test_leaving_out_the_length_penalty_or_the_ties_is_noticed():
    """Broken twins: ranked by log p alone the best text is the short one; with ties in order the winners differ."""
    mean, plain = (beam_search(table(), "", width=50, max_tokens=5, length_penalty=c) for c in (1.0, 0.0))
    law = exact(5)
    assert mean.tokens[0] == max(law, key=lambda t: math.log(law[t]) / len(t)) != plain.tokens[0] == best(law)
    reward, p = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5], dtype=torch.float64)
    upto = p.cumsum(0)
    ordered = upto**3 - (upto - p) ** 3
    assert float((best_of_n_law(reward, p.log(), 3).exp() - ordered).abs().max()) > 0.1
