"""Particle Gibbs over texts: the law of texts is invariant, by enumeration of whole sweeps."""

from __future__ import annotations

import math
from collections import defaultdict
from importlib import import_module

import pytest
import torch

import motes
from language.tables import exact, table
from language.test_exact import TOLERANCE
from language.test_resample_move import Z, ends_in_b
from language.test_steering import critic, rewards, worth
from motes.core.resampling import Scheme
from motes.errors import AllWeightsZero, MotesError, ShapeError
from motes.language import Generation, nucleus, predicate, regex, temperature
from motes.language.generation.particle_gibbs import Text, TextChains, _taken, particle_gibbs, sweep
from motes.testing import enumerate_runs
from motes.testing.rules import texts_of

PATTERN = "ab?|b|aab"


def written(model: Generation, law: dict) -> dict[tuple[int, ...], Text]:
    """Each text of a law as a generation writes it, found among many."""
    particles = motes.sample(model, 5000, seed=0, progress=False, ess_threshold=0.0).particles
    alive = torch.isfinite(particles.log_weight).tolist()
    place = {text: i for i, text in enumerate(texts_of(particles)) if alive[i]}
    return {text: _taken(model, particles, place[text]) for text in law}


def moved(model: Generation, law: dict, n: int, ess_threshold: float, forget: bool = False) -> dict:
    """The law one sweep later, over every outcome of the sweep; where all weights are zero nothing follows."""
    after: dict = defaultdict(float)
    for text, kept in written(model, law).items():

        def run(rng, kept=kept):
            try:
                return tuple(sweep(model, rng, None if forget else kept, n, ess_threshold).tokens.tolist())
            except AllWeightsZero:
                return None

        for p, found in enumerate_runs(run):
            after[found] += law[text] * p
    return after


def distance(law: dict, after: dict) -> float:
    return max(abs(law.get(text, 0.0) - after.get(text, 0.0)) for text in law.keys() | after.keys())


def normal(law: dict) -> dict:
    total = sum(law.values())
    return {text: value / total for text, value in law.items()}


SETTINGS = [
    ({"constraint": regex(PATTERN)}, lambda: exact(2, PATTERN)),
    ({"constraint": regex(PATTERN), "reward": rewards}, lambda: exact(2, PATTERN, worth)),
    ({"rules": [temperature(0.8)], "reward": rewards, "twist": critic}, lambda: exact(2, None, worth, 1.25)),
    ({"reward": rewards, "steer": 1, "anneal": lambda ess, progress: 3.0}, lambda: exact(2, None, worth)),
    ({"reward": rewards, "twist": critic, "step": "b"}, lambda: exact(2, None, worth)),
]


QUICK = {(0, 0.8), (0, 1.0), (1, 0.0), (1, 1.0), (2, 0.8), (3, 0.0), (3, 0.8), (4, 0.8)}


@pytest.mark.parametrize(
    "settings, law, ess_threshold",
    [
        pytest.param(
            *SETTINGS[k],
            ess_threshold,
            marks=() if (k, ess_threshold) in QUICK else pytest.mark.slow,
            id=f"{k}-{ess_threshold}",
        )
        for k in range(len(SETTINGS))
        for ess_threshold in (0.0, 0.8, 1.0)
    ],
)
def test_a_sweep_of_two_particles_leaves_the_law_invariant(settings, law, ess_threshold):
    model = Generation(table(), "", max_tokens=2, **settings)
    assert distance(normal(law()), moved(model, normal(law()), 2, ess_threshold)) < TOLERANCE


def test_three_particles_and_local_rules():
    """A nucleus of 0.6 keeps "a" at the start; after it "a" and the end, of mass 0.8."""
    model = Generation(table(), "", rules=[nucleus(0.6)], reward=rewards, max_tokens=2, globalise=False)
    law = normal({(0, 0): 0.5 * math.exp(worth("aa")), (0, 2): 0.3 * math.exp(worth("a"))})
    assert distance(law, moved(model, law, 3, 0.9)) < TOLERANCE


def test_three_tokens_leave_the_law_invariant():
    model = Generation(table(), "", constraint=regex("a(ba)?"), reward=rewards, max_tokens=3)
    law = normal(exact(3, "a(ba)?", worth))
    assert distance(law, moved(model, law, 2, 1.0)) < TOLERANCE


def test_a_filter_that_forgets_the_text_is_noticed():
    """The broken twin: every sweep is an ordinary run, of which two particles are too few."""
    model = Generation(table(), "", constraint=regex(PATTERN), reward=rewards, max_tokens=2)
    law = normal(exact(2, PATTERN, worth))
    assert distance(law, moved(model, law, 2, 0.0, forget=True)) > 0.02


def test_unconditional_resampling_is_noticed(monkeypatch):
    """The broken twin: the text takes part, but resampling may drop it."""
    dropping = Scheme("dropping", lambda rng, log_weight, n: rng.categorical(log_weight, n), variance=None)
    monkeypatch.setattr(import_module("motes.language.generation.particle_gibbs"), "conditional_multinomial", dropping)
    model = Generation(table(), "", constraint=regex(PATTERN), reward=rewards, max_tokens=2)
    law = normal(exact(2, PATTERN, worth))
    assert distance(law, moved(model, law, 2, 1.0)) > 0.01


def many(texts: list[str]) -> torch.Tensor:
    return torch.tensor([float(text.count("b")) for text in texts], dtype=torch.float64)


def z_of(found: TextChains, law: dict) -> float:
    truth = sum(value * text.count(1) for text, value in normal(law).items())
    mean = found.mean(many)
    return float((mean.value - truth) / mean.se)


@pytest.mark.parametrize("chains, sweeps, se", [(16, 12, 0.25), pytest.param(20, 30, 0.13, marks=pytest.mark.slow)])
def test_chains_of_longer_texts_have_the_right_mean(chains, sweeps, se):
    """Sweeps of 6 particles; an error of 5 se in a mean of 4 would be seen."""
    settings = {"constraint": regex("[ab]*b"), "reward": rewards}
    model = Generation(table(), "", max_tokens=6, **settings)
    found = particle_gibbs(model, 6, sweeps=sweeps, burn=4, chains=chains, seed=0)
    assert float(found.mean(many).se) < se
    assert abs(z_of(found, exact(6, "[ab]*b", worth))) < Z
    assert found.values(many).shape == (chains, sweeps) and len(found.texts) == sweeps * chains
    assert 0.3 < float(found.changed.mean()) < 1
    assert chains < found.ess(many) < sweeps * chains


@pytest.mark.parametrize("chains, sweeps, se", [(16, 12, 0.2), pytest.param(20, 30, 0.1, marks=pytest.mark.slow)])
def test_tokens_found_by_rejection_keep_their_random_weights(chains, sweeps, se):
    """An error of 5 se in a mean of 2.1 would be seen."""
    model = Generation(
        table(), "", constraint=predicate(lambda text: "aa" not in text, complete=ends_in_b), max_tokens=4
    )
    law = {t: v for t, v in exact(4).items() if ends_in_b("".join("ab"[k] for k in t if k < 2))}
    found = particle_gibbs(model, 4, sweeps=sweeps, burn=4, chains=chains, seed=1)
    assert set(found.texts) <= {"".join("ab"[k] for k in t if k < 2) for t in law}
    assert float(found.mean(many).se) < se
    assert abs(z_of(found, law)) < Z


def test_the_same_seed_gives_the_same_chains():
    model = Generation(table(), "", reward=rewards, max_tokens=5)
    a, b, c = (particle_gibbs(model, 3, sweeps=6, chains=2, seed=seed).texts for seed in (0, 0, 1))
    assert a == b != c


def test_texts_of_a_transformer_are_written_again_as_they_were(tiny):
    generation = Generation(tiny, "the cat", constraint=regex("[a-z .]{1,20}"), max_tokens=6)
    found = particle_gibbs(generation, 3, sweeps=4, chains=1, seed=0)
    text = found.chains[0][-1]
    again = sweep(generation, motes.Rng(5), text, 2, 0.5)
    if torch.equal(again.tokens, text.tokens):
        assert torch.equal(again.kept, text.kept)
    for draw in found.chains[0]:
        prefixes, alone = tiny.prefixes(generation.prompt, 6), 0.0
        for token in draw.tokens.tolist():
            alone += float(torch.log_softmax(prefixes.logits[0].double(), -1)[token])
            prefixes.extend(torch.tensor([0]), torch.tensor([token]))
        assert draw.log_prob == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("settings", [{"n": 1}, {"sweeps": 0}, {"chains": 0}, {"burn": -1}, {"ess_threshold": 2.0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(MotesError, match=next(iter(settings))):
        particle_gibbs(Generation(table(), "", max_tokens=2), **{"n": 2, "sweeps": 2, "seed": 0, **settings})


def test_what_is_no_generation_or_no_function_of_texts_is_refused():
    with pytest.raises(MotesError, match="Generation"):
        particle_gibbs(table(), 2, sweeps=1, seed=0)
    found = particle_gibbs(Generation(table(), "", max_tokens=2), 2, sweeps=1, seed=0)
    with pytest.raises(ShapeError, match="4 texts"):
        found.mean(lambda texts: torch.zeros(3))
