"""Every outcome of small runs, walked through: the weighted particles are unbiased for the target law."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from language.tables import TABLE, exact, table
from motes.core.resampling import schemes
from motes.core.smc import steps
from motes.language import Generation, nucleus, regex, temperature
from motes.language.generation.frontier import NextTokenLaw
from motes.testing import mean_weights
from motes.testing.rules import texts_of

TOLERANCE = 1e-12


def mean_law(model: Generation, n: int, scheme: str = "systematic", ess_threshold: float = 0.5):
    """E[mean of w 1{text}] over every outcome of a run with `n` particles, by text, and E[Z_hat]."""
    law = mean_weights(model, n, label=texts_of, resampling=scheme, ess_threshold=ess_threshold)
    return {text: value for text, value in law.items() if value > 0}, sum(law.values())


def assert_same_law(found, expected):
    assert found.keys() <= expected.keys() | {t for t, v in found.items() if v < TOLERANCE}
    for text, value in expected.items():
        assert found.get(text, 0.0) == pytest.approx(value, abs=TOLERANCE), text


PATTERN = "ab?|b|aab"
"""With two tokens: "a" goes on or ends, "b" must end, "aa" is cut before it matches."""


def run_two_tokens(scheme: str, ess_threshold: float, n: int = 2):
    model = Generation(table(), "", constraint=regex(PATTERN), max_tokens=2)
    if schemes[scheme].needs_order:
        model.order = lambda particles: particles.x["tokens"][:, 0].double()
    return mean_law(model, n, scheme, ess_threshold)


@pytest.mark.parametrize("scheme", sorted(schemes))
@pytest.mark.parametrize("ess_threshold", [0.0, 0.7, pytest.param(1.0, marks=pytest.mark.slow)])
def test_two_particles_are_unbiased_under_every_scheme(scheme, ess_threshold):
    found, z = run_two_tokens(scheme, ess_threshold)
    expected = exact(2, PATTERN)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


def test_three_particles_are_unbiased():
    found, z = run_two_tokens("systematic", 0.9, n=3)
    expected = exact(2, PATTERN)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", sorted(schemes))
def test_three_tokens_are_unbiased_under_every_scheme(scheme):
    model = Generation(table(), "", constraint=regex("a(ba|b)?"), max_tokens=3)
    if schemes[scheme].needs_order:
        model.order = lambda particles: particles.x["tokens"][:, 0].double()
    found, _ = mean_law(model, 2, scheme, 1.0)
    assert_same_law(found, exact(3, "a(ba|b)?"))


def test_masking_without_weights_is_noticed(monkeypatch):
    """The broken twin: next tokens are masked and renormalised, and nothing is weighted."""
    monkeypatch.setattr(NextTokenLaw, "log_mass", property(lambda law: torch.zeros_like(law.kept_by_constraint)))
    found, z = mean_law(Generation(table(), "", constraint=regex(PATTERN), max_tokens=2), 2)
    expected = exact(2, PATTERN)
    truth = {text: value / sum(expected.values()) for text, value in expected.items()}
    assert abs(z - sum(expected.values())) > 0.1
    assert max(abs(found.get(text, 0) / z - value) for text, value in truth.items()) > 0.05


def test_a_temperature_sharpens_the_law_of_whole_texts():
    model = Generation(table(), "", rules=[temperature(0.5)], constraint=regex("(a|b)+"), max_tokens=2)
    found, _ = mean_law(model, 2)
    assert_same_law(found, exact(2, "(a|b)+", power=2.0))


def nucleus_laws() -> tuple[dict, dict]:
    """Texts of two tokens under a nucleus of 0.6, counted by hand: restricted, and renormalised token by token.

    At the start {a}; after "a" {a, end}, mass 0.8.
    """
    restricted = {(0, 0): 0.7 * 0.5, (0, 2): 0.7 * 0.3}
    return restricted, {text: value / 0.7 / 0.8 for text, value in restricted.items()}


@pytest.mark.parametrize("globalise", [True, False])
def test_a_nucleus_restricts_texts_or_renormalises_tokens(globalise):
    model = Generation(table(), "", rules=[nucleus(0.6)], max_tokens=2, globalise=globalise)
    found, _ = mean_law(model, 1)
    assert_same_law(found, nucleus_laws()[0 if globalise else 1])


def count_b(text: str) -> float:
    return 0.8 * text.count("b") - 0.3 * len(text)


@pytest.mark.parametrize("steer, n", [(None, 1), (1, 2)])
def test_a_reward_tilts_and_steering_does_not_change_the_law(steer, n):
    def reward(texts):
        return torch.tensor([count_b(text) for text in texts], dtype=torch.float64)

    model = Generation(table(), "", reward=reward, max_tokens=2, steer=steer)
    found, _ = mean_law(model, n, ess_threshold=0.95)
    assert_same_law(found, exact(2, reward=count_b))


def test_a_prefix_worth_nothing_may_still_end_well():
    """Steering asks about unfinished texts; a reward of -inf there must not kill what would have ended well."""

    def whole(text: str) -> float:
        return 0.5 if text in ("ab", "ba") else -math.inf

    model = Generation(
        table(), "", reward=lambda ts: torch.tensor([whole(t) for t in ts]).double(), max_tokens=2, steer=1
    )
    found, z = mean_law(model, 2, ess_threshold=0.95)
    expected = exact(2, reward=whole)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE) and z > 0
    assert_same_law(found, expected)


def test_one_particle_without_rules_is_ancestral_sampling():
    found, z = mean_law(Generation(table(), "", max_tokens=3), 1)
    assert z == pytest.approx(1, abs=TOLERANCE)
    assert_same_law(found, exact(3))


def test_one_particle_draws_what_a_plain_loop_draws():
    run = motes.sample(Generation(table(), "", max_tokens=9), 1, seed=11, progress=False)
    text, rng = [], motes.Rng(11)
    while len(text) < 9 and (not text or text[-1] != 2):
        row = TABLE[text[-1] if text else -1][None]
        text.append(int(rng.at("step", step=len(text) + 1).at("token").categorical(row)[0]))
    assert texts_of(run.particles) == [tuple(text)]
    assert run.log_evidence == 0.0


def test_log_probability_of_validity_on_a_longer_text():
    """20 runs of 1000 particles: the mean of Z_hat / Z is 1 within 5 standard errors; 11 % would be seen."""
    truth = sum(exact(8, "(ab)*").values())
    model = Generation(table(), "", constraint=regex("(ab)*"), max_tokens=8)
    ratios = torch.tensor(
        [math.exp(motes.sample(model, 1000, seed=s, progress=False).log_evidence) / truth for s in range(20)]
    )
    se = float(ratios.std()) / math.sqrt(len(ratios))
    assert se < 0.021
    assert abs(float(ratios.mean()) - 1) < 5 * se


def test_identical_prefixes_are_evaluated_once():
    model = table()
    run = motes.sample(Generation(model, "", max_tokens=4), 500, seed=0, progress=False)
    assert model.evaluations <= 1 + 2 + 4 + 8
    assert run.trace["evaluated"].tolist() == [1, 2, 4, 8, 0]


def test_an_old_state_can_be_stepped_again():
    """The rows behind a state move on with the run; a state that is left behind finds its own again."""
    model = Generation(table(), "", constraint=regex("[ab]*"), max_tokens=6)
    states = steps(model, 6, seed=4, ess_threshold=0.0)
    old = [next(states).particles for _ in range(3)][-1]
    first = next(states).particles
    next(states)
    again = model.step(motes.Rng(4).at("step", step=first.t), old)
    assert torch.equal(again.x["tokens"], first.x["tokens"])
    assert torch.equal(again.log_weight, first.log_weight)
