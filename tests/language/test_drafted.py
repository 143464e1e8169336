"""Generation by rounds of drafts: texts and weights have the law of a generation token by token, by enumeration."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

import motes
from enumerator import enumerate_runs
from language.tables import TABLE, exact, table
from motes.core.errors import AllWeightsZero, MotesError, UnknownName
from motes.core.smc import steps
from motes.language import Generation, TableModel, mirostat_2, nucleus, predicate, regex, repetition, temperature
from motes.language.speculation import Drafted, single
from motes.language.speculation import rounds as rounds_module

TOLERANCE = 1e-12
SCHEMES = ["single", "block"]
SMALL = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.4, 0.3, 0.3]]).double().log()


def small() -> TableModel:
    return TableModel(["a", "b", "."], SMALL, name="small")


def count_b(texts):
    return torch.tensor([0.8 * text.count("b") - 0.3 * len(text) for text in texts], dtype=torch.float64)


JOBS = {
    "plain": {},
    "nucleus": {"rules": nucleus(0.6)},
    "temperature": {"rules": temperature(0.5), "constraint": regex("(a|b)+")},
    "local": {"rules": temperature(0.5), "constraint": regex("ab?|b|aab|bab"), "globalise": False},
    "memory": {"rules": (repetition(1.5), mirostat_2(1.0, 0.5))},
    "constraint": {"constraint": regex("ab?|b|aab|bab")},
    "reward": {"reward": count_b},
}


def outcomes(model, n: int = 1, when: float = 0.5):
    """The probability of each population of texts and log-weights, over every outcome of a run."""
    law: dict = defaultdict(float)

    def run(rng):
        last = None
        try:
            for state in steps(model, n, seed=rng, when=when):
                last = state.particles
        except AllWeightsZero:
            return None
        x, w = last.x, last.log_weight
        texts = [tuple(x["tokens"][i, : int(x["length"][i])].tolist()) for i in range(n)]
        return tuple((text, round(v, 9)) for text, v in zip(texts, w.tolist(), strict=True) if v > -torch.inf)

    for probability, outcome in enumerate_runs(run):
        law[outcome or None] += probability
    return law


def mean_law(law, n: int):
    """E[mean of w 1{text}] by text."""
    found: dict = defaultdict(float)
    for outcome, probability in law.items():
        for text, log_weight in outcome or ():
            found[text] += probability * float(torch.tensor(log_weight).double().exp()) / n
    return found


def assert_same(found, expected, tolerance=TOLERANCE):
    for key in {*found, *expected}:
        assert found.get(key, 0.0) == pytest.approx(expected.get(key, 0.0), abs=tolerance), key


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_particle_has_the_law_of_text_and_weight_that_it_has_without_drafts(job, scheme):
    generation = Generation(table(), "", max_tokens=3, **JOBS[job])
    assert_same(outcomes(Drafted(generation, small(), tokens=2, scheme=scheme)), outcomes(generation))
