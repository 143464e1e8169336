"""Uncertainty: closed forms, enumeration and simulation for what judges, asks, tests and scores; broken twins."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch

import motes
from language.tables import TABLE, exact, table, texts
from motes.core import Estimate
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.language import TableModel, regex
from motes.language.search import Arithmetic, StochasticBeam
from motes.language.uncertainty import (
    Answers,
    ByEmbedding,
    ByKey,
    ConformalSets,
    Scored,
    cluster,
    contextual_entropy_reduction,
    kernel_entropy,
    measures,
    perplexity,
    provenance,
    score,
    score_run,
    score_tokens,
    semantic_entropy,
    semantic_volume,
    sequence_entropy,
    shapley,
    shapley_uncertainty,
    strangeness,
    token_entropy,
)
from motes.rng import Rng

SAME = ByKey(str.casefold)
EYE = torch.eye(8, dtype=torch.float64)
PLACE = {"a": 0, "b": 1, "c": 2, "d": 3}


def basis(given: list[str]) -> torch.Tensor:
    """Each letter's own direction; a capital stands at cosine 0.6 to its letter and at right angles to others."""
    tilted = 0.6 * EYE + 0.8 * EYE.roll(4, 1)
    return torch.stack([(EYE if text.islower() else tilted)[PLACE[text.lower()]] for text in given])


def drawn(n: int, seed: int, p: tuple[float, ...] = (0.5, 0.3, 0.2)) -> list[str]:
    law = torch.tensor(p, dtype=torch.float64).log().expand(n, len(p))
    return ["abcd"[k] for k in Rng(seed).at("texts").categorical(law).tolist()]


def spread(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).std())


# ------------------------------------------------------------------------------------------------ context


def test_context_effect_by_hand_and_a_twin_that_clusters_apart() -> None:
    found = contextual_entropy_reduction(["a", "b", "b"], ["B", "B", "A", "A"], SAME)
    p, q = (1 / 3, 2 / 3), (1 / 2, 1 / 2)
    assert float(found.reduction) == pytest.approx(-sum(v * math.log(v) for v in p) - math.log(2), abs=1e-12)
    assert float(found.agreement) == pytest.approx(0.5)
    assert found.consistency == pytest.approx(sum(((u + v) / 2) ** 2 for u, v in zip(p, q, strict=True)))
    moved = contextual_entropy_reduction(["a", "b", "b"], ["B", "B", "A"], SAME)
    assert float(moved.agreement) == pytest.approx(5 / 9)
    apart = [cluster(part, SAME).double().mean() for part in (["a", "b", "b"], ["B", "B", "A"])]
    first, second = float(apart[0]), float(apart[1])  # weights of the second cluster, numbered apart
    assert first * second + (1 - first) * (1 - second) == pytest.approx(4 / 9)
    sure = contextual_entropy_reduction(["a", "b"], ["a", "a"], SAME)
    assert (
        float(sure.reduction) == pytest.approx(math.log(2)) and math.isnan(sure.reduction.se) and sure.reduction.reason
    )


def test_the_error_bar_of_an_agreement_is_its_spread() -> None:
    found = [
        contextual_entropy_reduction(drawn(60, 2 * k), drawn(60, 2 * k + 1, (0.2, 0.1, 0.7)), SAME) for k in range(300)
    ]
    for part in ("agreement", "reduction"):  # 300 replicates: 4.9 standard errors of a spread are 20 %
        numbers = [getattr(f, part) for f in found]
        assert spread([float(v) for v in numbers]) == pytest.approx(sum(v.se for v in numbers) / 300, rel=0.2)
    one = sum(f.without.se for f in found) / 300  # the twin: the error of one half alone
    assert abs(one / spread([float(f.reduction) for f in found]) - 1) > 0.2


# ------------------------------------------------------------------------------------------------ scores


def test_scores_of_the_table_by_hand() -> None:
    found = score(table(), "", [[1, 0, 2], [2], [1, 1]])
    p = TABLE.exp()
    assert found.log_prob.exp().flatten().tolist() == pytest.approx(
        [0.25, 0.1, 0.3, 0.05, 1, 1, 0.25, 0.6, 1], abs=1e-12
    )
    entropy = -(p * TABLE).sum(1)
    entropies, variances = found.need_laws()
    assert entropies[0].tolist() == pytest.approx([float(entropy[k]) for k in (3, 1, 0)])
    square = (p * TABLE.square()).sum(1) - entropy.square()
    assert variances[2, :2].tolist() == pytest.approx([float(square[k]) for k in (3, 1)])
    assert found.length.tolist() == [3, 1, 2] and not entropies[1, 1:].any()


def test_perplexity_by_hand_and_a_twin_that_averages_perplexities() -> None:
    scored = score_tokens(table(), torch.tensor([2]), [(2,), (1, 0, 2)])
    answers = Answers(["", "ba"], log_weight=torch.tensor([0.25, 0.75], dtype=torch.float64).log(), scored=scored)
    mean = (0.25 * math.log(0.05) + 0.75 * math.log(0.25 * 0.1 * 0.3)) / (0.25 * 1 + 0.75 * 3)
    assert float(perplexity(answers)) == pytest.approx(math.exp(-mean))
    twin = float(answers.weight @ (-scored.mean).exp())
    assert abs(twin / math.exp(-mean) - 1) > 0.2
    with pytest.raises(MotesError, match="score_run"):
        perplexity(["a"])


def test_entropy_per_token_of_the_table_model_and_a_twin_that_averages_texts() -> None:
    entropy = -(TABLE.exp() * TABLE).sum(1)
    total = tokens = twin = 0.0
    for text, p in texts(4):
        mine = sum(float(entropy[k]) for k in (3, *text[:-1]))
        total, tokens = total + math.prod(p) * mine, tokens + math.prod(p) * len(text)
        twin += math.prod(p) * mine / len(text)
    generation = motes.Generation(table(), "", max_tokens=4)
    found = token_entropy(score_run(motes.sample(generation, 3000, seed=2, progress=False), generation, laws=True))
    assert abs(float(found) - total / tokens) < 4.9 * found.se < 0.05
    assert abs(twin - total / tokens) > 4.9 * found.se


REWARD = {"": 0.3, "a": -0.5, "b": 0.4, "ab": 1.0, "abab": -0.2}


def paid(given: list[str]) -> torch.Tensor:
    return torch.tensor([REWARD.get(text, 0.1) for text in given], dtype=torch.float64)


@pytest.mark.parametrize("steer", [None, 1])
@pytest.mark.parametrize(("pattern", "reward"), [("(ab)*", None), (None, paid), ("[ab]b*", paid)])
def test_scores_under_a_constraint_and_a_reward_are_the_enumerated_law(pattern, reward, steer) -> None:
    value = None if reward is None else lambda text: float(paid([text])[0])
    law = exact(4, pattern, value)
    z = sum(law.values())
    constraint = None if pattern is None else regex(pattern)
    knobs = {"steer": steer} if reward is not None else {}
    generation = motes.Generation(table(), "", constraint=constraint, reward=reward, max_tokens=4, **knobs)
    run = motes.sample(generation, 400, seed=3, progress=False)
    found = score_run(run, generation)
    assert found.scored is not None and found.log_prob is not None
    alive = [i for i in range(found.n) if float(found.weight[i]) > 0]
    want = [math.log(law[found.scored.tokens[i]]) - run.log_evidence for i in alive]
    assert found.log_prob[alive].tolist() == pytest.approx(want, abs=1e-12)
    exactly = -sum(p / z * math.log(p / z) for p in law.values())
    entropy = sequence_entropy(found)
    assert abs(float(entropy) - exactly) < 4.9 * entropy.se + 1e-12
    twin = found.scored.total[alive] - run.log_evidence if reward is not None else found.scored.total[alive]
    assert max(abs(a - b) for a, b in zip(twin.tolist(), want, strict=True)) > 0.1


@pytest.mark.parametrize("kind", [motes.Generation, Arithmetic, StochasticBeam])
def test_what_a_run_kept_is_what_scoring_finds(kind) -> None:
    generation = kind(table(), "", max_tokens=5)
    run = motes.sample(generation, 12, seed=4, progress=False, ess_threshold=0.0)
    kept, again = score_run(run, generation), score_run(run, generation, laws=True)
    assert kept.scored is not None and again.scored is not None and kept.scored.tokens == again.scored.tokens
    assert torch.allclose(kept.scored.log_prob, again.scored.log_prob, atol=1e-12)
    if kind is motes.Generation:  # beams keep one number a text, so theirs are evaluated in any case
        with pytest.raises(MotesError, match="laws=True"):
            token_entropy(kept)


def test_equal_texts_are_evaluated_once_and_a_nan_names_all_else() -> None:
    model = table()
    score(model, "", [[0, 0, 2], [0, 0, 2], [1, 1]])
    assert model.evaluations == 1 + 2 + 1  # the start, then what stands before each later token
    nan = torch.full((3,), math.nan)
    broken = TableModel(["a", "b", "."], lambda text: nan if text == (1,) else torch.zeros(3))
    with pytest.raises(NanLogPotential, match=r"2.* at token 1"):
        score(broken, "", [[0, 0, 2], [0, 0, 2], [1, 1]])


def test_texts_under_rules_have_no_score_of_the_model() -> None:
    generation = motes.Generation(table(), "", rules=[motes.language.top_k(2)], max_tokens=3)
    with pytest.raises(MotesError, match="rules"):
        score_run(motes.sample(generation, 4, seed=0, progress=False), generation)


# ------------------------------------------------------------------------------------------------ provenance


def test_the_sum_that_provenance_tests_is_a_martingale_by_enumeration() -> None:
    law = list(texts(4))
    p = torch.tensor([math.prod(q) for _, q in law], dtype=torch.float64)
    scored = score(table(), "", [text for text, _ in law])
    entropy, variance = scored.need_laws()
    total = (-scored.log_prob - entropy).sum(1)
    assert abs(float(p @ total)) < 1e-12
    assert float(p @ total.square()) == pytest.approx(float(p @ variance.sum(1)), abs=1e-12)
    twin = -scored.total + scored.total @ p  # centred by the mean of all texts: right in the mean, not in the variance
    assert abs(float(p @ twin.square()) - float(p @ variance.sum(1))) > 0.03


def chains(n: int, length: int, heat: float) -> Scored:
    """Texts without end from a chain of three tokens, drawn at some temperature and scored at 1."""
    law = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]], dtype=torch.float64).log()
    hot = torch.log_softmax(law / heat, 1)
    entropy = -(law.exp() * law).sum(1)
    variance = (law.exp() * (law + entropy[:, None]).square()).sum(1)
    state, columns = torch.zeros(n, dtype=torch.int64), []
    for t in range(length):
        token = Rng(7).at("chain", inner=t).categorical(hot[state])
        columns.append((law[state, token], entropy[state], variance[state]))
        state = token
    log_prob, h, v = (torch.stack(c, 1) for c in zip(*columns, strict=True))
    return Scored([()] * n, log_prob, h, v, torch.full((n,), length))


def test_provenance_keeps_its_level_and_sees_another_temperature() -> None:
    own = provenance(chains(20_000, 150, 1.0))
    level = float((own.p_value < 0.05).double().mean())
    assert abs(level - 0.05) < 0.01 + 4.9 * math.sqrt(0.05 * 0.95 / 20_000)
    assert abs(float(own.z.mean())) < 4.9 / math.sqrt(20_000) and float(own.z.std()) == pytest.approx(1, abs=0.03)
    cold = provenance(chains(500, 150, 0.7))
    assert float((cold.p_value < 0.05).double().mean()) > 0.8 and float(cold.excess.mean()) < 0
    twin = own.excess * math.sqrt(150)  # the twin: a variance of 1 a token
    assert abs(float((torch.erfc(twin.abs() / math.sqrt(2)) < 0.05).double().mean()) - 0.05) > 0.03
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    with pytest.raises(MotesError, match="certain"):
        provenance(Scored([(0,)], nothing, nothing, nothing, torch.ones(1)))


# ------------------------------------------------------------------------------------------------ volume, Shapley


def test_volume_of_orthogonal_rotated_and_equal_answers() -> None:
    eps, letters = 1e-3, ["a", "b", "c", "d"]
    assert float(semantic_volume(letters, basis, epsilon=eps)) == pytest.approx(4 * math.log(1 + eps))
    turn = torch.linalg.qr(Rng(1).at("turn").normal((8, 8), dtype=torch.float64))[0]
    mixed = ["a", "A", "b", "B"]
    plain = float(semantic_volume(mixed, basis))
    assert float(semantic_volume(mixed, lambda given: basis(given) @ turn)) == pytest.approx(plain)
    stretched = float(semantic_volume(mixed, lambda given: basis(given) @ (EYE + 0.5 * EYE[0])))
    assert abs(stretched - plain) > 0.01  # the twin: a map that turns nothing changes it
    copied = float(semantic_volume(["a", "b", "c", "c"], basis, epsilon=eps))
    assert copied == pytest.approx(2 * math.log(1 + eps) + math.log(2 + eps) + math.log(eps))
    weight = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()
    one, two = (
        semantic_volume(Answers(t, log_weight=w), basis)
        for t, w in ((["a", "a", "b"], weight), (["b", "b", "a"], weight))
    )
    assert float(one) == pytest.approx(float(two))
    two_of = semantic_volume(["a", "a", "a", "b", "b", "c"], basis, dimensions=2, epsilon=eps)
    assert float(two_of) == pytest.approx(math.log(3 + eps) + math.log(2 + eps) + 4 * math.log(eps))
    with pytest.raises(MotesError, match="dimensions"):
        semantic_volume(letters, basis, dimensions=9)


def test_shapley_shares_are_means_over_all_orders_and_random_orders_come_near(monkeypatch) -> None:
    letters = ["a", "A", "b", "B"]
    v = basis(letters)
    weight = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    found = shapley_uncertainty(Answers(letters, log_weight=weight.log()), v @ v.T)

    def worth(members: tuple[int, ...]) -> float:
        part = weight[list(members)]
        return float(kernel_entropy(part / part.sum(), (v @ v.T)[list(members)][:, list(members)])) if members else 0.0

    want = torch.zeros(4, dtype=torch.float64)
    for order in permutations(range(4)):
        for k, one in enumerate(order):
            want[one] += (worth(order[: k + 1]) - worth(order[:k])) / 24
    assert torch.allclose(found.parts["share"], want, atol=1e-9)
    assert not torch.allclose(weight * float(found), want, atol=1e-2)  # the twin: shares by weight
    monkeypatch.setattr(shapley, "EXACT", 0)
    rough = shapley_uncertainty(Answers(letters, log_weight=weight.log()), v @ v.T, seed=Rng(0), orders=400)
    assert float(rough.parts["share"].sum()) == pytest.approx(float(found), abs=1e-9)
    assert torch.allclose(rough.parts["share"], want, atol=0.05)
    with pytest.raises(MotesError, match="seed="):
        shapley_uncertainty(letters, v @ v.T)


def test_error_bars_of_shapley_totals_and_volumes_are_their_spread() -> None:
    three = basis(["a", "A", "b"])
    alike, place = three @ three.T, {"a": 0, "b": 1, "c": 2}
    found = []
    for k in range(200):
        sample = drawn(80, k)
        order = [place[t] for t in dict.fromkeys(sample)]
        found.append(shapley_uncertainty(sample, alike[order][:, order]))
    assert spread([float(f) for f in found]) == pytest.approx(sum(f.se for f in found) / 200, rel=0.25)


# ------------------------------------------------------------------------------------------------ embeddings, sets


def test_meanings_by_embedding_at_their_threshold() -> None:
    assert cluster(["a", "A", "b"], ByEmbedding(basis, least=0.59)).tolist() == [0, 0, 1]
    assert cluster(["a", "A", "b"], ByEmbedding(basis, least=0.61)).tolist() == [0, 1, 2]
    # the length of an embedding does not matter: a twin that takes the product would join a with A
    assert cluster(["a", "A", "b"], ByEmbedding(lambda given: 3 * basis(given), least=0.61)).tolist() == [0, 1, 2]
    with pytest.raises(MotesError, match="zero"):
        cluster(["a", "b"], ByEmbedding(lambda given: 0 * basis(given)))
    with pytest.raises(ShapeError, match="embedding"):
        cluster(["a", "b"], ByEmbedding(lambda given: basis(given)[0]))
    with pytest.raises(MotesError, match="-1 to 1"):
        ByEmbedding(basis, least=1.5)


def test_conformal_sets_of_answers_by_hand() -> None:
    answers = ["a", "A", "a", "b", "c"]
    assert strangeness(answers, SAME, 1) == pytest.approx(0.4) and strangeness(answers, SAME, None) == 1
    sets = ConformalSets.fit(torch.tensor([0.1, 0.2, 0.5, 0.85], dtype=torch.float64), 0.25)
    assert (sets.threshold, sets.n) == (0.85, 4)
    assert sets.answers(answers, SAME) == {"a": pytest.approx(0.6), "b": 0.2, "c": 0.2}
    strict = ConformalSets.fit(torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64), 0.5)
    assert strict.threshold == 0.2 and strict.answers(answers, SAME) == {}
    assert ConformalSets(1.0, 0.1, 9).answers(["a"], SAME) == {"a": 1.0, "": 0.0}


# ------------------------------------------------------------------------------------------------ error bars


def test_bootstrap_intervals_cover_and_agree_with_the_delta_method() -> None:
    inside, narrow, ratio = 0, 0, []
    for k in range(400):
        answers = Answers(drawn(50, k))
        share = torch.tensor([float(t == "a") for t in answers.texts], dtype=torch.float64)
        found = answers.sample.bootstrap(Rng(k), lambda w, share=share: w @ share)
        inside += abs(float(found) - 0.5) < 1.96 * found.se
        narrow += abs(float(found) - 0.5) < 0.98 * found.se
        ratio.append(found.se / answers.sample.estimate(float(found), share).se)
    assert abs(inside / 400 - 0.95) < 4.9 * math.sqrt(0.95 * 0.05 / 400)
    assert narrow / 400 < 0.8  # the twin: half the error bar
    assert sum(ratio) / 400 == pytest.approx(1, abs=0.03)


def test_bootstrap_draws_families_and_not_texts_after_resampling() -> None:
    found, alone = [], []
    for seed in range(150):
        generation = motes.Generation(table(), "", reward=lambda given: 2 * paid(given), steer=1, max_tokens=4)
        run = motes.sample(generation, 400, seed=seed, progress=False, ess_threshold=1.0)
        share = torch.tensor([float(t.startswith("a")) for t in run.texts], dtype=torch.float64)
        for answers, where in (
            (Answers(run.texts, log_weight=run.log_weight, run=run), found),
            (Answers(run.texts), alone),
        ):
            where.append(answers.sample.bootstrap(Rng(seed), lambda w, share=share: w @ share))
    truth = spread([float(f) for f in found])
    # systematic resampling varies less than families drawn at random do, so the error bar is on the safe side
    assert 0.9 * truth < sum(f.se for f in found) / 150 < 1.3 * truth
    assert sum(f.se for f in alone) / 150 < 0.8 * truth  # the twin: texts drawn one by one


def test_the_error_bar_of_semantic_entropy_is_its_spread() -> None:
    found = [semantic_entropy(drawn(80, k), SAME) for k in range(300)]
    assert spread([float(f) for f in found]) == pytest.approx(sum(f.se for f in found) / 300, rel=0.2)


def test_neither_entropy_of_texts_varies_less_in_all_cases() -> None:
    def errors(model: TableModel) -> tuple[float, float]:
        generation = motes.Generation(model, "", max_tokens=4)
        answers = score_run(motes.sample(generation, 1000, seed=5, progress=False), generation, laws=True)
        return sequence_entropy(answers).se, token_entropy(answers, per_token=False).se

    even = torch.tensor([0.6, 0.15, 0.25], dtype=torch.float64).log().expand(4, 3)
    whole, by_token = errors(TableModel(["a", "b", "."], even))
    assert by_token > whole  # long texts are made of likely tokens here
    whole, by_token = errors(table())
    assert by_token < whole


WORDS = ["ab", "ba", "b", "a", "b", "aab"]
KNOBS: dict[str, dict[str, Any]] = {
    "semantic_entropy": {"clusters": ByKey(len)},
    "semantic_entropy_of_likelihood": {"clusters": ByKey(len), "seed": 1},
    "semantic_volume": {"embed": lambda texts: torch.stack([letters(t) for t in texts]), "seed": 1},
    "shapley_uncertainty": {"alike": lambda texts: torch.stack([letters(t) for t in texts]), "seed": 1},
}
"""What the measures without defaults are given."""


def letters(text: str) -> torch.Tensor:
    return torch.tensor([1.0, text.count("a"), text.count("b")], dtype=torch.float64)


def same_in_any_order(measure: Any, **knobs: Any) -> bool:
    """Whether what is estimated of weighted texts does not depend on how they are numbered."""
    weight = torch.tensor([0.3, 0.1, 0.2, 0.15, 0.15, 0.1], dtype=torch.float64)
    found = []
    for order in (range(6), (3, 5, 0, 2, 4, 1)):
        chosen = [WORDS[i] for i in order]
        scored = score(table(), "", [["ab.".index(c) for c in f"{t}."] for t in chosen])
        log_weight, log_prob = weight[list(order)].log(), scored.log_prob.sum(1)
        given = Answers(chosen, log_weight=log_weight, log_prob=log_prob, scored=scored)
        found.append(float(measure(given, **knobs)))
    return found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize("name", measures)
def test_no_measure_depends_on_the_order_of_the_texts(name: str) -> None:
    assert same_in_any_order(measures[name], **KNOBS.get(name, {}))


def test_a_measure_that_does_is_found() -> None:
    assert not same_in_any_order(lambda answers: Estimate(float(len(answers.texts[0])), 0.0, ess=1.0))
