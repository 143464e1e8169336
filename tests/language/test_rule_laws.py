"""Every rule keeps the laws of rules on the table model, and the law of whole texts that its docstring states."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from language.tables import TABLE, table
from motes.language import Generation, TableModel, rules
from motes.language.rule import Rule
from motes.testing import check_rule, mean_weights
from motes.testing.rules import Tried, texts_of

OTHER = torch.tensor(
    [[0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.4, 0.3, 0.3]], dtype=torch.float64
).log()
TOLERANCE = 1e-12
TOKENS = 3


def other(table: Tensor = OTHER) -> TableModel:
    return TableModel(["a", "b", "."], table, name="other")


KNOBS: dict[str, Rule] = {
    "antidistillation": rules.antidistillation(other(), other(OTHER.flip(1)), strength=0.02),
    "basis_aware": rules.basis_aware(torch.tensor([[1.0], [-1.0], [0.5]]), delta=0.35),
    "bregman": rules.bregman(0.3),
    "dynamic_temperature": rules.dynamic_temperature(0.5, high=2.0),
    "entropy_temperature": rules.entropy_temperature(1.3, ratio=0.7, theta=0.5),
    "epsilon": rules.epsilon(0.22),
    "eta": rules.eta(0.5),
    "frequency": rules.frequency(0.7),
    "gamma_sampling": rules.gamma_sampling((1,), gamma=0.3),
    "green_list": rules.green_list(key=3, strength=1.0),
    "prompt_guidance": rules.prompt_guidance("", scale=1.5, other=other()),
    "gumbel_watermark": rules.gumbel_watermark(key=5, softness=1.0),
    "kl_temperature": rules.kl_temperature("", base=1.2, scale=0.1, other=other()),
    "logit_bias": rules.logit_bias({0: 0.5, 2: -1.0}),
    "min_new_tokens": rules.min_new_tokens(2),
    "min_p": rules.min_p(0.4),
    "mirostat_1": rules.mirostat_1(0.6, rate=0.5),
    "mirostat_2": rules.mirostat_2(0.9, rate=0.9),
    "no_repeat": rules.no_repeat(2),
    "nucleus": rules.nucleus(0.75),
    "pointwise_information": rules.pointwise_information("", strength=0.7, other=other()),
    "presence": rules.presence(0.7),
    "repetition": rules.repetition(1.5, prompt=False),
    "self_terminating": rules.self_terminating(0.2),
    "stable_entropy": rules.stable_entropy(0.1, mean=(0.8, 0.0), sd=(0.2, 0.0), calm=1, mass=0.7),
    "temperature": rules.temperature(0.6),
    "top_h": rules.top_h(0.7),
    "top_k": rules.top_k(2),
    "top_n_sigma": rules.top_n_sigma(1.0),
    "typical": rules.typical(0.6),
}
"""Knobs with which there is something to see on the table model."""
CASES = {name: KNOBS[name] if name in KNOBS else kind(**kind.example) for name, kind in rules.rules.items()}


def counted(rule: Rule, globalise: bool) -> dict[tuple[int, ...], float]:
    """The law of whole texts: every text followed by hand, row by row, without a chain, a batch or a particle."""
    return Tried(rule, table(), TOKENS).whole(globalise)


def distance(name: str) -> float:
    """Total variation between the rule's law of whole texts and what token by token renormalising gives."""
    whole, local = counted(CASES[name], True), counted(CASES[name], False)
    total = sum(whole.values())
    return 0.5 * sum(abs(whole[text] / total - local[text]) for text in whole)


def test_knobs_are_of_rules():
    assert KNOBS.keys() <= CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_keeps_its_laws(name):
    adds = name == "self_terminating"
    check_rule(CASES[name], target=STATED.get(name), truncates=name in TRUNCATING, adds=adds)


@pytest.mark.parametrize("name", ["nucleus", "prompt_guidance"])
def test_two_particles_have_the_law_of_one(name):
    model = Generation(table(), "", rules=CASES[name], max_tokens=2)
    two, one = (mean_weights(model, n, label=texts_of, ess_threshold=1.0 if n == 2 else 0.0) for n in (2, 1))
    assert two == pytest.approx(one, abs=TOLERANCE)


# ---------------------------------------------------------------- the laws that the docstrings state, written out


def p(text: tuple[int, ...], law: Tensor = TABLE) -> float:
    return math.exp(sum(float(law[text[i - 1] if i else -1, v]) for i, v in enumerate(text)))


def green(text: tuple[int, ...]) -> float:
    return CASES["green_list"].detect(text, 3, prompt=[2]).score  # pyright: ignore[reportAttributeAccessIssue]


def pairs_differ(text: tuple[int, ...]) -> bool:
    every = (2, *text)
    pairs = list(pairwise(every))
    return len(set(pairs)) == len(pairs)


def powers(text: tuple[int, ...]) -> float:
    each = [math.exp(float(TABLE[text[i - 1] if i else -1, v])) for i, v in enumerate(text)]
    return math.prod(q**1.5 if v in text[:i] else q for i, (v, q) in enumerate(zip(text, each, strict=True)))


STATED = {
    "temperature": lambda y: p(y) ** (1 / 0.6),
    "frequency": lambda y: p(y) * math.exp(-0.7 * sum(y.count(v) * (y.count(v) - 1) / 2 for v in range(3))),
    "presence": lambda y: p(y) * math.exp(-0.7 * (len(y) - len(set(y)))),
    "repetition": powers,
    "logit_bias": lambda y: p(y) * math.exp(0.5 * y.count(0) - y.count(2)),
    "prompt_guidance": lambda y: p(y) ** 1.5 * p(y, OTHER) ** -0.5,
    "pointwise_information": lambda y: p(y) * p(y, OTHER) ** -0.7,
    "antidistillation": lambda y: p(y) * p(y, OTHER) / p(y, OTHER.flip(1)),
    "min_new_tokens": lambda y: p(y) * (2 not in y[:2]),
    "no_repeat": lambda y: p(y) * pairs_differ(y),
    "green_list": lambda y: p(y) * math.exp(green(y)) if pairs_differ(y) else None,
}
"""Laws of whole texts that need no walk along the text, up to a constant that is one here."""


TRUNCATING = {
    *("basis_aware", "epsilon", "eta", "min_new_tokens", "min_p", "mirostat_1", "mirostat_2", "no_repeat", "nucleus"),
    *("stable_entropy", "top_h", "top_k", "top_n_sigma", "typical"),
}
"""Rules that do nothing but exclude tokens."""


def test_distances_that_are_known():
    assert max(distance("gamma_sampling"), distance("self_terminating")) < 1e-12
    assert abs(distance("nucleus") - 0.5 * sum(abs(a - b) for a, b in by_hand())) < 1e-12


def by_hand() -> list[tuple[float, float]]:
    """A nucleus of 0.75: {a, b} at the start (0.95), {a, end} after a (0.8), {b, end} after b (0.9)."""
    keep = {(0, 0): 0.5, (0, 2): 0.3, (1, 1): 0.6, (1, 2): 0.3}
    start, mass, end = {0: 0.7, 1: 0.25}, {0: 0.8, 1: 0.9}, 2
    whole: dict[tuple[int, ...], float] = {}
    local: dict[tuple[int, ...], float] = {}
    for first, q in start.items():
        for second in (first, end):
            value, alone = q * keep[first, second], q / 0.95 * keep[first, second] / mass[first]
            if second == end:
                whole[first, end], local[first, end] = value, alone
                continue
            for third in (first, end):
                key = (first, second, third)
                whole[key] = value * keep[first, third]
                local[key] = alone * keep[first, third] / mass[first]
    total = sum(whole.values())
    return [(whole[text] / total, local[text]) for text in whole]
