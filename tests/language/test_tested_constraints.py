"""Constraints that only test single tokens, in a run: properly weighted by rejection sampling."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from language.tables import exact, table
from motes.errors import AllWeightsZero, MotesError
from motes.language import Generation, TableModel, predicate, regex, temperature


def no_double(text: str) -> bool:
    return "aa" not in text


def ends_in_b(text: str) -> bool:
    return no_double(text) and text.endswith("b")


def truth(max_tokens: int, accepts, power: float = 1.0) -> dict[tuple[int, ...], float]:
    spell = lambda text: "".join("ab"[v] for v in text if v < 2)  # noqa: E731
    return {text: p for text, p in exact(max_tokens, power=power).items() if accepts(spell(text))}


def estimates(model: Generation, runs: int, n: int) -> tuple[torch.Tensor, dict[tuple[int, ...], torch.Tensor]]:
    """Z_hat of each run, and the unnormalised weight of each text in each run."""
    z, by_text = [], {}
    for seed in range(runs):
        try:
            run = motes.sample(model, n, seed=seed, progress=False, ess_threshold=0.7)
        except AllWeightsZero:
            z.append(0.0)
            continue
        x, w = run.particles.x, run.particles.log_weight.exp() / n
        z.append(float(w.sum()))
        for i in torch.nonzero(w)[:, 0].tolist():
            text = tuple(x["tokens"][i, : int(x["length"][i])].tolist())
            by_text.setdefault(text, torch.zeros(runs, dtype=torch.float64))[seed] += w[i]
    return torch.tensor(z, dtype=torch.float64), by_text


def z_score(values: torch.Tensor, truth: float) -> float:
    return float((values.mean() - truth) / (values.std() / math.sqrt(len(values))))


@pytest.mark.parametrize("rules, power, max_refused", [((), 1.0, 512), ((temperature(0.5),), 2.0, None), ((), 1.0, 1)])
def test_a_predicate_gives_the_law_of_whole_texts(rules, power, max_refused):
    """120 runs of 20 particles, resampled on the way: the mean weight of every text within 4.9 standard errors."""
    constraint = predicate(no_double, complete=ends_in_b)
    model = Generation(table(), "", rules=rules, constraint=constraint, max_tokens=4, max_refused=max_refused)
    z, by_text = estimates(model, 120, 20)
    expected = truth(4, ends_in_b, power)
    assert by_text.keys() <= expected.keys()
    assert abs(z_score(z, sum(expected.values()))) < 4.9
    for text, value in expected.items():
        if value > 0.003:
            assert abs(z_score(by_text[text], value)) < 4.9, text


def test_steps_of_text_draw_each_token_anew():
    """Several tokens in one step of the engine must not share their random numbers."""
    model = Generation(table(), "", constraint=predicate(no_double, complete=ends_in_b), step="never", max_tokens=4)
    z, by_text = estimates(model, 100, 20)
    expected = truth(4, ends_in_b)
    assert abs(z_score(z, sum(expected.values()))) < 4.9
    for text, value in expected.items():
        if value > 0.003:
            assert abs(z_score(by_text[text], value)) < 4.9, text


class Unweighted(Generation):
    """The broken twin: tokens by rejection, their weights thrown away."""

    def _draw(self, rng, frontier, drawn):
        token, gained = super()._draw(rng, frontier, drawn)
        return token, torch.where(torch.isneginf(gained), gained, 0.0)


def test_rejection_without_weights_is_noticed():
    model = Unweighted(table(), "", constraint=predicate(no_double, complete=ends_in_b), max_tokens=4)
    z, _ = estimates(model, 60, 20)
    assert abs(z_score(z, sum(truth(4, ends_in_b).values()))) > 8


def test_a_product_with_a_predicate():
    model = Generation(table(), "", constraint=regex("[ab]{2,3}") & predicate(no_double), max_tokens=4)
    z, by_text = estimates(model, 100, 20)
    expected = truth(4, lambda text: no_double(text) and 2 <= len(text) <= 3)
    assert abs(z_score(z, sum(expected.values()))) < 4.9
    assert by_text.keys() <= expected.keys()


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
