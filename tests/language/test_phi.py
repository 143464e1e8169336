"""Foresight decoding: its weights, its groups of words, and the laws of small searches, enumerated."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict

import pytest
import torch

from language.tables import TABLE, exact, spell, table
from motes.errors import EmptyConstraint, MotesError
from motes.language import TableModel, predicate, regex
from motes.language.search import foresight_weights, phi_decoding
from motes.language.search.word_clusters import nearest_centres, word_clusters, word_weights
from motes.testing import enumerate_runs

TEXTS = ["The answer is 7.", "So the answer is 7", "no idea at all", "the answer: 8", "", "No idea"]


def test_with_one_cluster_the_weights_are_even_in_half():
    advantage = torch.tensor([0.1, -0.2, 0.0, 0.05], dtype=torch.float64)
    soft = [math.exp(a / 0.1) for a in advantage.tolist()]
    truth = [(1 / 4 + s / sum(soft)) / 2 for s in soft]
    assert foresight_weights(advantage, torch.zeros(4, dtype=torch.int64)).tolist() == pytest.approx(truth, abs=1e-14)


def weights_by_hand(advantage: list[float], label: list[int]) -> list[float]:
    n = len(label)
    common = [math.exp(label.count(c) / n) for c in label]
    good = [math.exp(a / 0.1) for a in advantage]
    return [(c / sum(common) + g / sum(good)) / 2 for c, g in zip(common, good, strict=True)]


def test_the_weights_of_clusters_are_those_of_the_formula():
    """Broken twin: shares that count a cluster once, not once for each of its members, give other weights."""
    advantage, label = torch.tensor([0.1, 0.2, 0.0, 0.3], dtype=torch.float64), torch.tensor([0, 0, 0, 1])
    found = foresight_weights(advantage, label)
    assert found.tolist() == pytest.approx(weights_by_hand(advantage.tolist(), label.tolist()), abs=1e-14)
    assert float(found.sum()) == pytest.approx(1)
    shares = torch.softmax(torch.tensor([0.75, 0.25]), 0)[label] / torch.bincount(label)[label]
    twin = (shares + torch.softmax(advantage / 0.1, 0)) / 2
    assert float((twin - found).abs().max()) > 0.05


def test_words_weigh_as_in_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer

    theirs = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(TEXTS).toarray()
    torch.testing.assert_close(word_weights(TEXTS), torch.from_numpy(theirs), rtol=0, atol=1e-12)


def cost(x: torch.Tensor, parts: list[int]) -> float:
    of = torch.tensor(parts)
    return sum(float((x[of == j] - x[of == j].mean(0)).square().sum()) for j in set(parts))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_groups_are_fixed_points_and_nearly_the_best_partition(k):
    """Within 5 % of the least sum of squares of all partitions (the local optima reach 1 and 4 %)."""
    x = word_weights(TEXTS)
    label = nearest_centres(x, k)
    assert sorted(set(label.tolist())) == list(range(k))
    centre = torch.stack([x[label == j].mean(0) for j in range(k)])
    assert torch.equal(torch.cdist(x, centre).argmin(1), label)
    best = min(cost(x, list(parts)) for parts in itertools.product(range(k), repeat=len(TEXTS)))
    assert cost(x, label.tolist()) <= 1.05 * best + 1e-9


def test_texts_that_agree_stand_together_and_no_words_are_one_group():
    assert word_clusters(TEXTS[:3], 2).tolist() == [0, 0, 1]
    assert word_clusters(["", "...", "!"], 3).tolist() == [0, 0, 0]
    assert word_clusters(["a"], 3).tolist() == [0]


def law_of(**knobs) -> dict[tuple[int, ...], float]:
    law = defaultdict(float)
    for p, found in enumerate_runs(lambda rng: phi_decoding(table(), "", seed=rng, **knobs).tokens[0]):
        law[found] += p
    return law


def test_one_text_of_one_rollout_is_an_ordinary_draw():
    knobs = {"width": 1, "rollouts": 1, "depth": 2, "step": 1, "foresight": 1, "temperature": 1.0}
    assert law_of(max_tokens=3, **knobs) == pytest.approx(exact(3), abs=1e-12)
    other = law_of(max_tokens=3, **{**knobs, "temperature": 0.6})
    assert max(abs(other[t] - p) for t, p in exact(3).items()) > 0.01  # the twin that draws too cold


def test_two_rollouts_choose_as_written():
    """Every candidate and foresight of one round by hand: texts of two tokens, one text kept of two."""
    row = {text: TABLE[text[-1] if text else -1].exp().tolist() for text in [(), (0,), (1,)]}
    law = defaultdict(float)
    for first, second in itertools.product(range(3), repeat=2):
        p = row[()][first] * row[()][second]
        ways = [[(None, 1.0)] if v == 2 else [(w, row[(v,)][w]) for w in range(3)] for v in (first, second)]
        for (look, q), (other, r) in itertools.product(*ways):
            value, words = [], []
            for v, w in ((first, look), (second, other)):
                value.append(math.log(row[()][v] if w is None else row[(v,)][w]))
                words.append(spell((v,) if w is None else (w,)))
            weight = weights_by_hand(value, [0, 0] if words[0] == words[1] else [0, 1])
            for i, v in enumerate((first, second)):
                if v == 2:
                    law[(2,)] += p * q * r * weight[i]
                else:
                    for w in range(3):
                        law[(v, w)] += p * q * r * weight[i] * row[(v,)][w]
    knobs = {"width": 1, "rollouts": 2, "depth": 1, "step": 1, "foresight": 1, "temperature": 1.0, "spread": 9.0}
    found = law_of(max_tokens=2, **knobs)
    assert found == pytest.approx(law, abs=1e-12)
    assert max(abs(found[t] - p) for t, p in exact(2).items()) > 0.02  # it is no sample of the model


def test_steps_far_below_the_others_are_given_up():
    """With spread 0 only the steps at or above the mean are left, so the improbable end has no chance at the start."""
    law = law_of(width=1, rollouts=2, depth=1, step=1, foresight=1, temperature=1.0, spread=0.0, max_tokens=1)
    p = TABLE[-1].exp().tolist()
    top = {(0,): 1 - (1 - p[0]) ** 2, (1,): p[1] ** 2 + 2 * p[1] * p[2], (2,): p[2] ** 2}
    assert law == pytest.approx(top, abs=1e-12)


def test_agreement_ends_the_rounds():
    asked = []

    def together(texts: list[str]) -> list[int]:
        asked.append(len(texts))
        return [0] * len(texts)

    even = TableModel(["a", "b", "."], torch.zeros(4, 3))
    knobs = {"step": 1, "max_tokens": 9, "stop": None, "constraint": regex("[ab]{9}")}
    phi_decoding(even, "", seed=0, clusters=together, least=2, depth=6, **knobs)
    assert len(asked) == 2 + 1  # two rounds and the end
    asked.clear()
    apart = lambda texts: list(range(len(together(texts))))  # noqa: E731
    phi_decoding(even, "", seed=0, clusters=apart, least=2, depth=6, **knobs)
    assert len(asked) == 6 + 1


def test_steps_end_where_they_should(tiny):
    found = phi_decoding(tiny, "the cat", seed=3, step=3, stop="a", foresight=4, width=3, rollouts=2, max_tokens=12)
    assert len(found) == 3 and float(found.score.sum()) == pytest.approx(1)
    assert found.score.tolist() == sorted(found.score.tolist(), reverse=True)
    again = phi_decoding(tiny, "the cat", seed=3, step=3, stop="a", foresight=4, width=3, rollouts=2, max_tokens=12)
    assert again.tokens == found.tokens


def test_constraints_hold_and_what_is_empty_is_said():
    for constraint in (
        regex("(ab)+"),
        predicate(lambda t: re.fullmatch("(ab)*a?", t) is not None, complete=lambda t: "ab" in t),
    ):
        found = phi_decoding(table(), "", seed=1, constraint=constraint, step=2, max_tokens=8)
        assert all("ab" in text and re.fullmatch("(ab)+a?", text) for text in found.texts)
        assert max(Counter(found.tokens).values()) <= 4
    with pytest.raises(EmptyConstraint):
        phi_decoding(table(), "", seed=0, constraint=regex("a{9}"), max_tokens=3)


@pytest.mark.parametrize(
    "knobs", [{"width": 0}, {"temperature": 0.0}, {"stop": ""}, {"clusters": 0}, {"foresight": 0}, {"agreement": 1.5}]
)
def test_wrong_knobs_are_refused(knobs):
    with pytest.raises(MotesError, match="must"):
        phi_decoding(table(), "", seed=0, **knobs)


def test_wrong_clusters_are_refused():
    with pytest.raises(MotesError, match="whole numbers"):
        phi_decoding(table(), "", seed=0, clusters=lambda texts: [0], max_tokens=4)
