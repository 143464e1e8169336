"""Uncertainty of weighted texts against hand-computed values and enumeration."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

import motes
from language.tables import table, texts
from motes.core.remark import EVIDENCE, MEANS, Remark
from motes.language.uncertainty import (
    Answers,
    ByFunction,
    ByKey,
    answer_information,
    auroc,
    cluster,
    conformal_quantile,
    good_turing,
    kernel_entropy,
    missing_mass,
    score_run,
    semantic_entropy,
    semantic_entropy_of_likelihood,
    sequence_entropy,
    shapley_uncertainty,
    token_entropy,
)
from motes.rng import Rng

PARIS = ["Paris", "It's Paris", "London"]
P = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
CITY = ByKey(lambda text: "Paris" in text)


def test_semantic_entropy_of_paris_and_a_twin_that_counts_copies() -> None:
    assert abs(float(semantic_entropy(Answers(PARIS, log_weight=P.log()), CITY)) - 0.32508) < 1e-5
    drawn = Answers(["Paris", *PARIS], log_prob=torch.cat([P[:1], P]).log())
    assert abs(float(semantic_entropy_of_likelihood(drawn, CITY)) - 0.32508) < 1e-5
    twice = torch.tensor([1.5, 0.1]) / 1.6
    assert abs(float(-(twice * twice.log()).sum()) - 0.32508) > 0.05


def test_first_member_and_components_differ_where_a_judgement_is_not_transitive() -> None:
    near = ByFunction(lambda a, b: abs(len(a) - len(b)) <= 1)
    assert cluster(["a", "aa", "aaa"], near).tolist() == [0, 0, 1]
    assert cluster(["a", "aa", "aaa"], near, how="components").tolist() == [0, 0, 0]


def test_good_turing_is_exact_in_the_mean_over_all_samples() -> None:
    law, n = {"a": 0.5, "b": 0.3, "c": 0.2}, 4
    mean = sum(math.prod(law[t] for t in s) * float(good_turing(list(s))) for s in product(law, repeat=n))
    assert abs(mean - sum(p * (1 - p) ** (n - 1) for p in law.values())) < 1e-12
    assert abs(mean - sum(p * (1 - p) ** n for p in law.values())) > 1e-3  # the twin: the mass that n leave unseen


def test_entropies_and_unseen_mass_of_the_table_model() -> None:
    law = {t: math.prod(p) for t, p in texts(4)}
    exact = -sum(p * math.log(p) for p in law.values())
    generation = motes.Generation(table(), "", max_tokens=4)
    answers = score_run(motes.sample(generation, 2000, seed=1, progress=False), generation, laws=True)
    for found in (sequence_entropy(answers), token_entropy(answers, per_token=False)):
        assert abs(float(found) - exact) < 4.9 * found.se < 0.2
    assert answers.scored is not None
    unseen = 1 - sum(law[t] for t in set(answers.scored.tokens))
    assert abs(float(missing_mass(answers)) - max(0.0, unseen)) < 1e-9
    assert answers.run is not None
    stuck = replace(answers.run, remarks=[Remark("the sampler is stuck", MEANS, withholds=True)])
    found = sequence_entropy(replace(answers, run=stuck))
    assert math.isnan(found.se) and found.reason == "the sampler is stuck"


def test_a_normaliser_without_error_bar_says_why() -> None:
    """Where the run withholds the bar of log Z, what is computed with log Z gives its reason."""
    generation = motes.Generation(table(), "", constraint=motes.language.regex("a|bb"), max_tokens=3)
    run = motes.sample(generation, 64, seed=3, progress=False)
    doubted = replace(run, remarks=[Remark("the sampler is stuck", EVIDENCE, withholds=True)])
    for found in (missing_mass, sequence_entropy):
        assert not found(score_run(run, generation)).reason
        told = found(score_run(doubted, generation))
        assert math.isnan(told.se) and told.reason == "the log normaliser has no error bar: the sampler is stuck"
    given = Answers(PARIS * 4, log_prob=P.log().repeat(4), log_prob_se=math.nan)
    assert [f(given).reason for f in (missing_mass, sequence_entropy)] == ["the log normaliser has no error bar"] * 2


def test_the_conformal_rank_covers_and_the_plain_quantile_does_not() -> None:
    score = Rng(0).at("scores").uniform((20000, 10))
    inside = torch.stack([s[9] <= conformal_quantile(s[:9], 0.1) for s in score[:4000]]).double().mean()
    assert abs(float(inside) - 0.9) < 4.9 * math.sqrt(0.09 / 4000)
    plain = (score[:, 9] <= torch.quantile(score[:, :9], 0.9, dim=1)).double().mean()
    assert abs(float(plain) - 0.82) < 0.02
    assert conformal_quantile(score[0, :8], 0.1) == math.inf


def test_shapley_shares_add_up_and_have_the_limits() -> None:
    one, eye = torch.ones(3, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    even = shapley_uncertainty(["a", "b", "c"], eye)
    assert torch.allclose(even.parts["share"], torch.full((3,), math.log(3) / 3, dtype=torch.float64))
    assert abs(float(shapley_uncertainty(["a", "b", "c"], one))) < 1e-9
    block = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = shapley_uncertainty(Answers(PARIS, log_weight=P.log()), block)
    assert abs(float(found) - 0.32508) < 1e-5 and abs(float(found.parts["share"].sum()) - float(found)) < 1e-9
    assert abs(float(kernel_entropy(P, block)) - 0.32508) < 1e-5


def test_information_and_area_by_hand() -> None:
    p = torch.tensor([0.7, 0.3], dtype=torch.float64)
    assert abs(float(answer_information(p.log(), p.log().expand(2, 2)))) < 1e-12
    copied = answer_information(p.log(), torch.eye(2, dtype=torch.float64).log())
    assert float(copied) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-12)
    wrong = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor([3.0, 1.0, 1.0, 0.0]), wrong).value == 0.875
