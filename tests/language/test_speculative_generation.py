"""Generation by rounds of drafts: texts and weights have the law of a generation token by token, by enumeration."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch

import motes
from language.tables import exact, table
from motes.core.resampling import Scheme
from motes.core.smc import steps
from motes.errors import AllWeightsZero, MotesError, UnknownName
from motes.language import (
    Generation,
    TableModel,
    choices,
    mirostat_2,
    nucleus,
    predicate,
    regex,
    repetition,
    temperature,
)
from motes.language.models.hugging_face import TransformersModel
from motes.language.speculation import SpeculativeGeneration, block, single, speculative_generation
from motes.testing import enumerate_runs

TOLERANCE = 1e-12
SCHEMES_OF = {"single": single.verify, "block": block.verify}
SCHEMES = list(SCHEMES_OF)
SMALL = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.4, 0.3, 0.3]]).double().log()


PICK = Scheme("pick", lambda rng, log_weight, n: rng.categorical(log_weight, n), variance="chan_lai")
"""Multinomial resampling, in few outcomes."""


def small() -> TableModel:
    return TableModel(["a", "b", "."], SMALL, name="small")


def count_b(texts):
    return torch.tensor([0.8 * text.count("b") - 0.3 * len(text) for text in texts], dtype=torch.float64)


LISTED = ("a", "ab", "b", "aab", "bab")
JOBS = {
    "plain": {},
    "rules": {"rules": (temperature(0.7), nucleus(0.6))},
    "memory": {"rules": (repetition(1.5), mirostat_2(1.0, rate=0.5))},
    "constraint": {"constraint": choices(LISTED)},
    "local": {"rules": temperature(0.5), "constraint": regex("ab?|b|aab|bab"), "globalise": False},
    "reward": {"rules": nucleus(0.6), "reward": count_b},
}


def outcomes(model, n: int = 1, ess_threshold: float = 0.5, digits: int = 10):
    """The probability of each population of texts and log-weights, over every outcome of a run."""
    law: dict = defaultdict(float)

    def run(rng):
        last: Any = None
        try:
            for state in steps(model, n, seed=rng, resampling=PICK, ess_threshold=ess_threshold):
                last = state.particles
        except AllWeightsZero:
            return None
        x, w = last.x, last.log_weight
        texts = [tuple(x["tokens"][i, : int(x["length"][i])].tolist()) for i in range(n)]
        return tuple((text, round(v, digits)) for text, v in zip(texts, w.tolist(), strict=True) if v > -torch.inf)

    for probability, outcome in enumerate_runs(run):
        law[outcome or None] += probability
    return law


def mean_law(law, n: int):
    """E[mean of w 1{text}] by text."""
    found: dict = defaultdict(float)
    for outcome, probability in law.items():
        for text, log_weight in outcome or ():
            found[text] += probability * math.exp(log_weight) / n
    return found


def assert_same(found, expected, tolerance=TOLERANCE):
    for key in {*found, *expected}:
        assert found.get(key, 0.0) == pytest.approx(expected.get(key, 0.0), abs=tolerance), key


@pytest.mark.parametrize("job", [pytest.param("long", marks=pytest.mark.slow), *JOBS])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_particle_has_the_law_of_text_and_weight_that_it_has_without_drafts(job, scheme):
    length = 2 if job == "plain" else 3
    generation = Generation(table(), "", max_tokens=length, preview=None, **JOBS.get(job, {}))
    assert_same(outcomes(SpeculativeGeneration(generation, small(), tokens=2, scheme=scheme)), outcomes(generation))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("length", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_two_particles_are_unbiased(scheme, length):
    """Resampled after every round, where their texts differ in length."""
    if scheme == "block":
        listed = LISTED[: 2 * length - 1]
        generation = Generation(table(), "", constraint=choices(listed), max_tokens=length)
        expected = exact(length, "|".join(listed))
    else:
        generation = Generation(table(), "", rules=nucleus(0.6), max_tokens=length)
        expected = mean_law(outcomes(generation, digits=15), 1)
    found = mean_law(
        outcomes(SpeculativeGeneration(generation, small(), tokens=1, scheme=scheme), 2, ess_threshold=0.99, digits=15),
        2,
    )
    assert sum(found.values()) == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same(found, expected)


def off_by(found, expected) -> float:
    return max(abs(found.get(key, 0.0) - expected.get(key, 0.0)) for key in {*found, *expected})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_drafts_that_are_all_believed_would_be_noticed(scheme, monkeypatch):
    def believe(rng, ids, log_p, log_q, drafts, count):
        return SCHEMES_OF[scheme](rng, ids, log_p, log_p[:, :-1], drafts, count)

    monkeypatch.setitem(speculative_generation.SCHEMES, scheme, believe)
    generation = Generation(table(), "", max_tokens=2)
    found = outcomes(SpeculativeGeneration(generation, small(), tokens=2, scheme=scheme))
    assert off_by(found, outcomes(generation)) > 0.05


class Unweighted(SpeculativeGeneration):
    """The broken twin: the mass behind the last token of a round is never counted."""

    def _write(self, x, reader, turn, *rest):
        return super()._write(x, reader, replace(turn, unread=torch.full_like(turn.unread, -1)), *rest)


def test_a_mass_that_is_forgotten_between_rounds_would_be_noticed():
    generation = Generation(table(), "", constraint=choices(LISTED), max_tokens=3)
    found = mean_law(outcomes(Unweighted(generation, small(), tokens=1)), 1)
    assert off_by(found, exact(3, "|".join(LISTED))) > 0.01


# ---------------------------------------------------------------- around the law


def test_a_text_does_not_depend_on_the_other_particles():
    generation = Generation(table(), "", constraint=regex("(ab|ba|bb)+"), max_tokens=12)
    many, few = (
        motes.sample(SpeculativeGeneration(generation, small(), tokens=3), n, seed=3, ess_threshold=0.0, progress=False)
        for n in (40, 8)
    )
    assert few.texts == many.texts[:8]
    assert torch.equal(few.particles.log_weight, many.particles.log_weight[:8])


@pytest.mark.parametrize(
    "job", [{"constraint": regex("[ab]+")}, {"rules": (repetition(1.3), mirostat_2(2.0, rate=0.3))}]
)
def test_a_run_resumes(tmp_path, job):
    def drafted():
        return SpeculativeGeneration(
            Generation(table(), "", max_tokens=12, reward=count_b, steer=2, **job), small(), tokens=2
        )

    whole = motes.sample(drafted(), 20, seed=2, progress=False, ess_threshold=0.9)
    motes.sample(
        drafted(), 20, seed=2, progress=False, ess_threshold=0.9, max_steps=2, checkpoint=tmp_path / "run.motes"
    )
    rest = motes.resume(tmp_path / "run.motes", drafted(), progress=False)
    assert rest.texts == whole.texts and torch.equal(rest.particles.log_weight, whole.particles.log_weight)


def test_a_draft_that_is_the_model_itself_is_always_believed():
    """9 rounds of four drafts and one token."""
    sure = torch.tensor([[0.5, 0.5, 0.0], [0.3, 0.7, 0.0], [0.3, 0.3, 0.4], [0.5, 0.5, 0.0]]).double().log()
    model = TableModel(["a", "b", "."], sure.clamp(min=-60))
    run = motes.sample(
        SpeculativeGeneration(Generation(model, "", max_tokens=45), model, tokens=4), 6, seed=0, progress=False
    )
    assert run.particles.t == 9 and {len(text) for text in run.texts} == {45}
    assert torch.equal(run.particles.x["accepted"], run.particles.x["drafted"])


def test_a_transformers_model_says_of_drafted_texts_what_it_says_of_them_read_at_once(tiny):
    lesser = TransformersModel(copy.deepcopy(tiny.model), tiny.tokenizer, name="lesser")
    noise = motes.Rng(1)
    with torch.no_grad():
        for name, weight in lesser.model.named_parameters():
            weight += 0.1 * noise.at(name).normal(tuple(weight.shape), dtype=torch.float32) * weight.std()
    generation = Generation(tiny, "the cat", max_tokens=24)
    run = motes.sample(
        SpeculativeGeneration(generation, lesser, tokens=3), 6, seed=1, progress=False, resampling="multinomial"
    )
    x = run.particles.x
    assert 0.1 < float(x["accepted"].sum() / x["drafted"].sum()) < 1
    P = len(generation.prompt)
    for i in range(6):
        text = x["tokens"][i, : int(x["length"][i])]
        with torch.inference_mode():
            logits = tiny.model(input_ids=torch.cat([generation.prompt, text])[None]).logits[0, P - 1 : -1]
        own = logits.double().log_softmax(1).gather(1, text[:, None])[:, 0]
        torch.testing.assert_close(x["log_prob"][i, : len(text)], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change, what",
    [
        ({"tokens": 0}, "at least 1"),
        ({"draft": TableModel(["a", "b", "c", "."], torch.zeros(5, 4))}, "same vocabulary"),
        ({"generation": table()}, "motes.Generation"),
        ({"generation": Generation(table(), "", step="b")}, "step"),
        ({"generation": Generation(table(), "", constraint=predicate(lambda text: True))}, "one by one"),
    ],
)
def test_what_cannot_be_drafted_is_refused(change, what):
    settings = {"generation": Generation(table(), ""), "draft": small(), **change}
    with pytest.raises(MotesError, match=what):
        SpeculativeGeneration(**settings)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UnknownName, match="block"):
        SpeculativeGeneration(Generation(table(), ""), small(), scheme="greedy")
