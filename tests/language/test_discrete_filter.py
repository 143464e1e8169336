"""Sequential Monte Carlo over distinct texts: every outcome of small runs, walked through."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import motes
from language.tables import exact, spell, table
from language.test_exact import TOLERANCE, assert_same_law
from language.test_exact import mean_law as law_of_generation
from motes.errors import AllWeightsZero, EmptyConstraint, MotesError
from motes.language import Generation, Potential, nucleus, predicate, regex
from motes.language.generation.discrete_filter import DiscreteParticleFilter

PATTERN = "(ab?)*|b"
mean_law: Any = law_of_generation


def worth(text: str) -> float:
    return 0.8 * text.count("b") - 0.3 * len(text)


def rewards(texts: list[str]) -> torch.Tensor:
    return torch.tensor([worth(text) for text in texts], dtype=torch.float64)


def critic(texts: list[str]) -> torch.Tensor:
    """A bad guess: what it prefers, the reward does not."""
    return torch.tensor([1.5 * text.count("a") for text in texts], dtype=torch.float64)


class Judge(Potential):
    def complete(self, texts):
        return rewards(texts)

    def prefix(self, texts):
        return critic(texts)


# ------------------------------------------------------------------------------------------------ texts


NO_BB = predicate(lambda text: "bb" not in text)
GUIDED = {"reward": rewards, "twist": critic, "constraint": regex(PATTERN)}


def truth(max_tokens: int, settings: dict) -> dict[tuple[int, ...], float]:
    constraint = settings.get("constraint")
    law = exact(
        max_tokens,
        PATTERN if constraint is not None and constraint is not NO_BB else None,
        reward=worth if "reward" in settings else None,
    )
    return {text: v for text, v in law.items() if constraint is not NO_BB or "bb" not in spell(text)}


@pytest.mark.parametrize(
    "n, settings",
    [
        (2, GUIDED),
        (1, {"reward": rewards, "constraint": NO_BB}),
        pytest.param(1, GUIDED, marks=pytest.mark.slow),
        pytest.param(2, {"reward": rewards, "constraint": NO_BB}, marks=pytest.mark.slow),
        pytest.param(1, {}, marks=pytest.mark.slow),
        pytest.param(2, {"reward": Judge(), "steer": 2}, marks=pytest.mark.slow),
        pytest.param(3, {"constraint": regex(PATTERN)}, marks=pytest.mark.slow),
    ],
)
def test_expansion_is_unbiased_in_every_outcome(n, settings):
    law, z = mean_law(DiscreteParticleFilter(table(), "", max_tokens=2, **settings), n)
    assert z == pytest.approx(sum(truth(2, settings).values()), abs=TOLERANCE)
    assert_same_law(law, truth(2, settings))


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_three_tokens_are_unbiased_in_every_outcome(n):
    law, z = mean_law(DiscreteParticleFilter(table(), "", max_tokens=3, **GUIDED), n)
    assert z == pytest.approx(sum(truth(3, GUIDED).values()), abs=TOLERANCE)
    assert_same_law(law, truth(3, GUIDED))


@pytest.mark.parametrize(
    "n, factor, most",
    [(1, 2, 1), (1, 1, 2), *(pytest.param(n, k, 2, marks=pytest.mark.slow) for n, k in ((2, 1), (1, 2)))],
)
def test_random_candidates_are_unbiased_in_every_outcome(n, factor, most):
    law, z = mean_law(DiscreteParticleFilter(table(), "", max_tokens=most, factor=factor, **GUIDED), n)
    assert z == pytest.approx(sum(truth(most, GUIDED).values()), abs=TOLERANCE)
    assert_same_law(law, truth(most, GUIDED))


@pytest.mark.parametrize("globalise", [True, False])
def test_rules_restrict_texts_or_renormalise_tokens(globalise):
    """A nucleus of 0.6 keeps {a}, mass 0.7, at the start, and after "a" {a, end}, mass 0.8."""
    law, _ = mean_law(DiscreteParticleFilter(table(), "", rules=[nucleus(0.6)], max_tokens=2, globalise=globalise), 1)
    restricted = {(0, 0): 0.7 * 0.5, (0, 2): 0.7 * 0.3}
    assert_same_law(law, restricted if globalise else {text: v / 0.56 for text, v in restricted.items()})


class Kept(DiscreteParticleFilter):
    """The broken twin: what the twist lent is never taken back."""

    def _judged(self, beam, t, entry, token, log_prob, included, before):
        out = super()._judged(beam, t, entry, token, log_prob, included, torch.zeros_like(before))
        return (*out[:4], torch.zeros_like(out[4]))


class Light(DiscreteParticleFilter):
    """The broken twin: light candidates that are kept stay light."""

    def choose(self, rng, beam, more, shared, n):
        entry, token, more_, shared = super().choose(rng, beam, more, shared, n)
        return entry, token, {**more_, "log_included": more["log_included"][entry]}, shared


@pytest.mark.parametrize("cls, settings", [(Kept, {"twist": critic}), (Light, {})])
def test_broken_twins_are_noticed(cls, settings):
    law, _ = mean_law(cls(table(), "", max_tokens=2, **settings), 1)
    assert max(abs(law.get(text, 0.0) - value) for text, value in exact(2).items()) > 0.02


def test_the_factor_counts_in_the_weights():
    """The broken twin: a candidate that was drawn weighs what it weighed before, whatever the number of draws."""

    class Uncounted(DiscreteParticleFilter):
        def _drawn(self, rng, beam, n):
            entry, token, log_prob, drawn = super()._drawn(rng, beam, n)
            return entry, token, log_prob, torch.zeros_like(drawn)

    law, _ = mean_law(Uncounted(table(), "", max_tokens=1, factor=2), 1)
    assert max(abs(law.get(text, 0.0) - value) for text, value in exact(1).items()) > 0.02


@pytest.mark.parametrize("factor", [None, 2])
def test_texts_are_distinct(factor):
    run = motes.sample(DiscreteParticleFilter(table(), "", max_tokens=8, factor=factor), 50, seed=1, progress=False)
    texts = [text for text, w in zip(run.texts, run.log_weight.tolist(), strict=True) if w > -math.inf]
    ended = {tuple(x.tolist()) for x in run.particles.x["tokens"][: len(texts)]}
    assert len(texts) == 50 == len(ended)


def test_as_many_particles_as_texts_are_exact():
    settings = {"constraint": regex(PATTERN), "reward": rewards, "twist": critic}
    run = motes.sample(DiscreteParticleFilter(table(), "", max_tokens=3, **settings), 40, seed=0, progress=False)
    law = exact(3, PATTERN, reward=worth)
    assert run.log_evidence == pytest.approx(math.log(sum(law.values())), abs=1e-12)
    error = DiscreteParticleFilter(table(), "", max_tokens=3).standard_error(run.particles)
    assert error.value == 0.0 and error.method == "every text was counted"
    few = motes.sample(DiscreteParticleFilter(table(), "", max_tokens=3), 1, seed=0, progress=False)
    assert math.isnan(DiscreteParticleFilter(table(), "", max_tokens=3).standard_error(few.particles).value)


def z_hats(model, n: int, seeds: int) -> torch.Tensor:
    out = []
    for seed in range(seeds):
        try:
            out.append(math.exp(motes.sample(model, n, seed=seed, progress=False).log_evidence))
        except AllWeightsZero:
            out.append(0.0)
    return torch.tensor(out, dtype=torch.float64)


def test_random_candidates_are_unbiased_with_more_particles():
    """80 runs: an error of 4.9 standard errors of the mean, 10 %, would be seen."""
    model = DiscreteParticleFilter(
        table(), "", max_tokens=4, factor=2, reward=rewards, twist=rewards, constraint=regex("[ab]*b[ab]*")
    )
    found = z_hats(model, 30, 80)
    z = sum(exact(4, "[ab]*b[ab]*", reward=worth).values())
    se = float(found.std()) / math.sqrt(len(found))
    assert se < 0.02 * z
    assert abs(float(found.mean()) - z) < 4.9 * se


def test_every_continuation_varies_less_than_drawn_tokens():
    """The mean squared error of Z with 8 particles, of `Generation` over that of `DiscreteParticleFilter`: above 10."""
    settings = {"reward": rewards, "twist": rewards, "constraint": regex("(ab?)*"), "max_tokens": 6}
    z = sum(exact(6, "(ab?)*", reward=worth).values())
    drawn = (z_hats(Generation(table(), "", **settings), 8, 30) - z).square().mean()
    every = (z_hats(DiscreteParticleFilter(table(), "", **settings), 8, 30) - z).square().mean()
    assert float(drawn / every) > 10


def test_a_saved_run_goes_on(tmp_path):
    model = DiscreteParticleFilter(table(), "", max_tokens=6, reward=rewards, twist=critic, constraint=regex(PATTERN))
    whole = motes.sample(model, 5, seed=3, progress=False)
    states = []
    motes.sample(model, 5, seed=3, progress=False, callback=states.append)
    old = states[3].particles
    again = model.step(motes.Rng(3).at("step", step=4), model.restore(old))
    assert torch.equal(again.x["tokens"], states[4].particles.x["tokens"])
    assert torch.equal(again.log_weight, states[4].particles.log_weight)
    assert torch.equal(whole.log_weight, states[-1].particles.log_weight)


@pytest.mark.parametrize(
    "settings, what",
    [({"factor": 0}, "factor"), ({"factor": True}, "factor"), ({"twist": 3}, "twist"), ({"steer": 0}, "steer")],
)
def test_arguments(settings, what):
    with pytest.raises(MotesError, match=what):
        DiscreteParticleFilter(table(), "", **settings)


def test_a_constraint_that_leaves_nothing():
    with pytest.raises((EmptyConstraint, AllWeightsZero)):
        motes.sample(
            DiscreteParticleFilter(table(), "", rules=[nucleus(0.6)], constraint=regex("b"), max_tokens=3), 4, seed=0
        )
