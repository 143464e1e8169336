"""What can be wrong with rules and their companions, what tells rules apart, and what they remember after a resume."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import motes
from language.tables import table
from language.test_rule_laws import CASES, OTHER, other
from motes.core.smc import steps
from motes.errors import MotesError
from motes.language import Generation, TableModel, rules
from motes.language.generation.frontier import TextReader
from motes.language.rule import Rule, renormalised

COMPARING = {
    "prompt_guidance": lambda model: rules.prompt_guidance("", scale=1.5, other=model),
    "kl_temperature": lambda model: rules.kl_temperature("", other=model),
    "pointwise_information": lambda model: rules.pointwise_information("", other=model),
    "antidistillation": lambda model: rules.antidistillation(table(), model),
}


def sample(rule, n=16):
    return motes.sample(Generation(table(), "", rules=rule, max_tokens=4), n, seed=0, progress=False)


@pytest.mark.parametrize("name", COMPARING)
def test_a_companion_of_another_vocabulary_is_refused(name):
    with pytest.raises(MotesError, match=r"4 tokens .* one vocabulary"):
        sample(COMPARING[name](TableModel(["a", "b", "c", "."], torch.zeros(5, 4), name="four")))
    with pytest.raises(MotesError, match=r"spell them differently \(token 0 is 'x' and 'a'\)"):
        sample(COMPARING[name](TableModel(["x", "y", "."], torch.zeros(4, 3), name="xy")))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", COMPARING)
def test_a_companion_that_returns_nan_is_named(name, value):
    def logits(text):
        return torch.full((3,), value).double() if text == (0,) else OTHER[text[-1] if text else -1]

    with pytest.raises(MotesError, match=r"broken, which \w+ asks, returned NaN or infinite logits in 1 of"):
        sample(COMPARING[name](TableModel(["a", "b", "."], logits, name="broken")))


class Doubled(Rule):
    """The law squared, and the division forgotten."""

    def __call__(self, log_prob, seen=None):
        return 2 * log_prob, torch.zeros(len(log_prob), dtype=torch.float64)

    def settings(self) -> dict[str, Any]:
        return {"rule": "Doubled"}


def test_a_law_that_does_not_add_to_one_is_refused():
    with pytest.raises(MotesError, match=r"add to 0\.555"):
        sample(Doubled())


@dataclass(frozen=True, eq=False)
class Shifted(Rule):
    """A rule of a user's own with a tensor in it."""

    by: Tensor

    def __call__(self, log_prob, seen=None):
        return renormalised(log_prob + self.by)


def shift(*by: float) -> Rule:
    return Shifted(torch.tensor(by, dtype=torch.float64))


@pytest.mark.parametrize(
    "one, two",
    [
        (shift(0, 0, 1), shift(0, 1, 0)),
        (rules.basis_aware(torch.zeros(3, 1)), rules.basis_aware(torch.ones(3, 1))),
        (rules.prompt_guidance("", other=other()), rules.prompt_guidance("", other=other(OTHER.flip(1)))),
        (rules.logit_bias({0: -torch.inf}), rules.logit_bias({0: -1.0})),
        (rules.stable_entropy(torch.inf), rules.stable_entropy(1.0)),
    ],
)
def test_settings_are_json_and_tell_rules_apart(one, two):
    both = [json.dumps(rule.settings(), allow_nan=False) for rule in (one, two)]
    assert both[0] != both[1]


@pytest.mark.parametrize("name", CASES)
def test_the_settings_of_every_rule_are_json(name):
    found = json.dumps(CASES[name].settings(), allow_nan=False)
    assert json.loads(found)["rule"] == type(CASES[name]).__name__


def test_a_run_with_a_tensor_in_a_rule_resumes_with_that_rule_only(tmp_path):
    path = tmp_path / "run.safetensors"

    def model(rule):
        return Generation(table(), "", rules=rule, max_tokens=6)

    motes.sample(
        model(shift(0, 1, 0)), 8, seed=0, progress=False, checkpoint=path, callback=lambda state: state.particles.t == 2
    )
    with pytest.raises(MotesError, match="rules"):
        motes.resume(path, model(shift(0, 0, 1)), progress=False)
    found = motes.resume(path, model(shift(0, 1, 0)), progress=False)
    assert found.texts == motes.sample(model(shift(0, 1, 0)), 8, seed=0, progress=False).texts


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: rules.temperature("0.7"), "temperature"),  # pyright: ignore
        (lambda: rules.temperature(torch.tensor(0.7)), "temperature"),  # pyright: ignore
        (lambda: rules.nucleus(np.float32(0.7)), "nucleus"),  # pyright: ignore
        (lambda: rules.stable_entropy(mean=("a", 1)), "stable_entropy"),  # pyright: ignore
        (lambda: rules.stable_entropy(sd=(1.0,)), "slope"),  # pyright: ignore
        (lambda: rules.basis_aware(torch.full((3, 1), torch.nan)), "NaN"),
    ],
)
def test_knobs_of_the_wrong_kind(make, what):
    with pytest.raises(MotesError, match=what):
        make()


REMEMBERING = [
    rules.prompt_guidance("", scale=1.2, other=other()),
    rules.repetition(1.3),
    rules.mirostat_2(2.5, rate=0.7),
    rules.frequency(),
]


@pytest.mark.parametrize("step", ["token", "b"])
def test_restored_rows_have_the_law_of_their_text_alone(step):
    """States, companions and tokens of each row, after resampling and a resume; rows wait while others go on."""
    model = Generation(table(), "", rules=REMEMBERING, max_tokens=7, step=step)
    checked = 0
    for state in steps(model, 8, seed=3, ess_threshold=1.0):
        x = model.restore(state.particles).x
        for i in torch.nonzero(~x["finished"])[:, 0].tolist():
            alone = TextReader(model.model, model.prompt, 7, REMEMBERING, None)
            for token in x["tokens"][i, : int(x["length"][i])].tolist():
                alone.extend(torch.tensor([0]), torch.tensor([token]))
                alone.law = alone.find_law()
            law, row = x["frontier"].reader.law, x["frontier"].row[i]
            torch.testing.assert_close(law.log_prob[row], alone.law.log_prob[0])
            torch.testing.assert_close(law.kept_by_rules[row], alone.law.kept_by_rules[0])
            checked += 1
    assert checked > 10
