"""Constraints that only test single tokens, in a run: properly weighted by rejection sampling."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import motes
from breaks import breaks
from language.tables import exact, table
from motes.errors import AllWeightsZero, MotesError
from motes.language import Generation, TableModel, predicate, regex, temperature
from motes.language.generation.proposals.next_tokens import FromLaw
from motes.testing import check_model
from motes.testing.rules import texts_of


def no_double(text: str) -> bool:
    return "aa" not in text


def ends_in_b(text: str) -> bool:
    return no_double(text) and text.endswith("b")


def truth(max_tokens: int, accepts, power: float = 1.0) -> dict[tuple[int, ...], float]:
    spell = lambda text: "".join("ab"[v] for v in text if v < 2)  # noqa: E731
    return {text: p for text, p in exact(max_tokens, power=power).items() if accepts(spell(text))}


def check(model: Generation, expected: dict[tuple[int, ...], float]) -> None:
    """120 runs of 20 particles, resampled on the way."""
    check_model(model, n=20, law=expected, label=texts_of, laws=["law"], runs=120, ess_threshold=0.7)


@pytest.mark.parametrize("rules, power, max_refused", [((), 1.0, 512), ((temperature(0.5),), 2.0, None), ((), 1.0, 1)])
def test_a_predicate_gives_the_law_of_whole_texts(rules, power, max_refused):
    constraint = predicate(no_double, complete=ends_in_b)
    model = Generation(table(), "", rules=rules, constraint=constraint, max_tokens=4, max_refused=max_refused)
    check(model, truth(4, ends_in_b, power))


def test_steps_of_text_draw_each_token_anew():
    """Several tokens in one step of the engine must not share their random numbers."""
    model = Generation(table(), "", constraint=predicate(no_double, complete=ends_in_b), step="never", max_tokens=4)
    check(model, truth(4, ends_in_b))


class Unweighted(Generation):
    """The broken twin: tokens by rejection, their weights thrown away."""

    @property
    def proposal(self):
        def propose(rng, state, drawn):
            new = FromLaw(self.max_refused)(rng, state, drawn)
            gained = torch.where(torch.isneginf(new.gained), new.gained, 0.0)
            return replace(new, gained=gained, kept=gained)

        return propose


def test_rejection_without_weights_is_noticed():
    model = Unweighted(table(), "", constraint=predicate(no_double, complete=ends_in_b), max_tokens=4)
    with breaks("law"):
        check(model, truth(4, ends_in_b))


def test_a_product_with_a_predicate():
    model = Generation(table(), "", constraint=regex("[ab]{2,3}") & predicate(no_double), max_tokens=4)
    check(model, truth(4, lambda text: no_double(text) and 2 <= len(text) <= 3))


def test_a_predicate_that_nothing_satisfies_says_so():
    model = Generation(table(), "", constraint=predicate(lambda text: text == ""), max_tokens=4)
    run = motes.sample(model, 10, seed=0, progress=False)
    assert set(run.texts) == {""}
    with pytest.raises(AllWeightsZero):
        motes.sample(
            Generation(table(), "", constraint=predicate(lambda text: False), max_tokens=4), 10, seed=0, progress=False
        )


def died(**settings) -> str:
    """What a run says of which every text died."""
    with pytest.raises(AllWeightsZero) as caught:
        motes.sample(Generation(**{"model": table(), "prompt": "", **settings}), 20, seed=0, progress=False)
    return str(caught.value)


def test_a_constraint_that_refuses_everything_gives_up_and_does_not_blame_the_length():
    asked = []
    words = TableModel([*(f"<{i}>" for i in range(2000)), "."], lambda text: torch.zeros(2001).double())
    never = predicate(lambda text: bool(asked.append(text)), name="never")
    said = died(model=words, constraint=never, max_tokens=6, max_refused=40)
    assert len(asked) <= 1 + 20 * 40
    assert "no token that the predicate never accepts" in said and "up to 40" in said
    assert "max_refused" in said and "max_tokens" not in said
    assert "all 3" in died(constraint=predicate(lambda text: False), max_tokens=6)


def test_what_texts_died_of_decides_the_advice():
    no_b = predicate(lambda text: "b" not in text, name="no_b")
    said = died(constraint=no_b & regex("ab[ab]{3}"), max_tokens=6)
    assert "Behind 'a' no token" in said and "max_tokens" not in said
    # each goes on, and no token does so for both
    said = died(constraint=regex("a(b|a)a") & regex("a(b|bb)b"), max_tokens=6)
    assert "Behind 'ab' there is no token" in said and "max_tokens" not in said
    said = died(constraint=predicate(lambda text: True, complete=lambda text: len(text) > 4), max_tokens=4)
    assert "one of 5 tokens" in said and "raise max_tokens" in said
    # nothing of the constraint's
    said = died(constraint=regex("a|b"), reward=lambda texts: torch.full((len(texts),), -torch.inf), max_tokens=4)
    assert "softer potentials" in said and "max_tokens" not in said


def test_the_limit_of_refusals_is_a_number():
    with pytest.raises(MotesError, match="max_refused must be None or a whole number"):
        Generation(table(), "", max_refused=0)
