"""Rewritten texts: detailed balance by enumeration, unbiased normalisers, populations that are no longer poor."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

import motes
from language.tables import exact, table, texts
from language.test_exact import TOLERANCE, assert_same_law, mean_law, texts_of
from motes.core.particles import Particles
from motes.core.tree import take
from motes.errors import FileError, MotesError
from motes.language import Generation, nucleus, predicate, regex, temperature
from motes.language.generation.resample_move import ResampleMove
from motes.testing import enumerate_runs

MOST = 3
LONG = pytest.param(3, marks=pytest.mark.slow)
Z = 4.9
PATTERN = "[ab]*b"


def worth(text: str) -> float:
    return 0.8 * text.count("b") - 0.3 * len(text)


def rewards(texts: list[str]) -> torch.Tensor:
    return torch.tensor([worth(text) for text in texts], dtype=torch.float64)


def written(model: Generation, law: dict) -> dict:
    """For each text of a law a population of one that holds it at the end of its generation, found among many."""
    particles = motes.sample(model, 10000, seed=0, progress=False, ess_threshold=0.0).particles
    place = {
        text: torch.tensor([i]) for i, text in enumerate(texts_of(particles)) if particles.log_weight[i] > -math.inf
    }
    return {text: Particles.start(take(particles.x, place[text]), particles.log_weight[place[text]]) for text in law}


def transitions(model: ResampleMove, law: dict, now: float = 1.0) -> dict:
    """The probability of each text after one rewrite of each."""
    found = {}
    for text, particles in written(model.generation, law).items():
        row: dict = defaultdict(float)

        def run(rng, particles=particles):
            x, _ = model._rewritten(rng, particles, now)
            return texts_of(replace(particles, x=x))[0]

        for p, after in enumerate_runs(run):
            row[after] += p
        found[text] = row
    return found


def imbalance(law: dict, found: dict) -> float:
    """The most by which detailed balance is missed, and that the rows do not add up to one."""
    worst = max(abs(sum(row.values()) - 1) for row in found.values())
    for a in law:
        for b in law:
            worst = max(worst, abs(law[a] * found[a].get(b, 0.0) - law[b] * found[b].get(a, 0.0)))
    return worst


SETTINGS = [
    ({}, lambda most: exact(most)),
    ({"reward": rewards}, lambda most: exact(most, reward=worth)),
    ({"reward": rewards, "constraint": PATTERN}, lambda most: exact(most, PATTERN, worth)),
    ({"rules": [temperature(0.8)], "constraint": PATTERN}, lambda most: exact(most, PATTERN, power=1.25)),
]


@pytest.mark.parametrize("most", [2, LONG])
@pytest.mark.parametrize("settings, law", SETTINGS)
def test_rewriting_is_in_detailed_balance(settings, law, most):
    settings, law = dict(settings), law(most)
    if "constraint" in settings:
        settings["constraint"] = regex(settings["constraint"])
    found = transitions(ResampleMove(Generation(table(), "", max_tokens=most, **settings)), law)
    assert imbalance(law, found) < TOLERANCE
    assert all(len(row) == len(found) for row in found.values())  # any text can follow any other: a cut at the first


def test_local_and_global_rules_have_their_own_laws():
    """A nucleus of 0.6 at the start keeps "a"; after "a", "a" and the end with mass 0.8."""
    for globalise in (True, False):
        generation = Generation(table(), "", rules=[nucleus(0.6)], max_tokens=2, globalise=globalise)
        mass = 0.7 * 0.8
        law = {text: v / (1 if globalise else mass) for text, v in {(0, 0): 0.35, (0, 2): 0.21}.items()}
        assert imbalance(law, transitions(ResampleMove(generation), law)) < TOLERANCE


@pytest.mark.parametrize("most", [2, LONG])
def test_local_rules_of_different_masses(most):
    """The masses differ between texts, so that counting them where they do not count would be seen."""
    rules = [temperature(0.8)]
    generation = Generation(table(), "", rules=rules, max_tokens=most, globalise=False)
    law = {}
    for text, p in texts(most):
        rows = [table().logits(text[:j]).double().exp() for j in range(len(text))]
        law[text] = math.prod(q**1.25 / float((row**1.25).sum()) for q, row in zip(p, rows, strict=True))
    found = transitions(ResampleMove(generation), law)
    assert imbalance(law, found) < TOLERANCE
    assert imbalance(exact(most, power=1.25), found) > 0.0005


def test_a_tempered_rewrite_is_in_balance_with_the_tempered_law():
    def law(power):
        return exact(MOST, PATTERN, lambda text: power * worth(text))

    generation = Generation(table(), "", constraint=regex(PATTERN), reward=rewards, max_tokens=MOST)
    found = transitions(ResampleMove(generation, temper=True), law(0.3), now=0.3)
    assert imbalance(law(0.3), found) < TOLERANCE
    assert imbalance(law(1.0), found) > 0.001


class Careless(ResampleMove):
    """The broken twin: the cut's density is forgotten, as if texts could not change in length."""

    def _written(self, rng, x, cut):
        new, mass, evaluated = super()._written(rng, x, cut)
        return new, mass + new["length"].double().log() - x["length"].double().log(), evaluated


class Greedy(ResampleMove):
    """The broken twin: the masses that the constraint keeps are left out of the ratio."""

    def _written(self, rng, x, cut):
        new, mass, evaluated = super()._written(rng, x, cut)
        return new, torch.where(torch.isneginf(mass), mass, x["kept"].sum(1)), evaluated


@pytest.mark.parametrize("twin, least", [(Careless, 0.005), (Greedy, 0.002)])
def test_a_wrong_ratio_is_noticed(twin, least):
    law = exact(MOST, PATTERN, worth)
    generation = Generation(table(), "", reward=rewards, constraint=regex(PATTERN), max_tokens=MOST)
    assert imbalance(law, transitions(twin(generation), law)) > least


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("settings", [{"sweeps": 2}, {"sweeps": 1, "temper": True, "ladder": [0.4, 1.0]}])
def test_one_particle_is_unbiased(settings):
    """Every outcome of a run of one particle: annealed importance sampling."""
    generation = Generation(table(), "", reward=rewards, constraint=regex("ab?|b|aab"), max_tokens=2)
    found, z = mean_law(ResampleMove(generation, **settings), 1)
    expected = exact(2, "ab?|b|aab", worth)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


@pytest.mark.slow
def test_two_particles_are_unbiased():
    generation = Generation(table(), "", reward=rewards, constraint=regex("a|b"), max_tokens=2)
    found, z = mean_law(ResampleMove(generation, sweeps=1), 2, "multinomial", ess_threshold=0.0)
    expected = exact(2, "a|b", worth)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)
    assert_same_law(found, expected)


def steep(texts: list[str]) -> torch.Tensor:
    return torch.tensor([1.0 * text.count("b") for text in texts], dtype=torch.float64)


def estimates(model, seeds: int, n: int) -> torch.Tensor:
    """(seeds, 2) errors: of Z_hat / Z, and of the weight of texts with two "b" over Z."""
    law = exact(5, PATTERN, lambda text: 1.0 * text.count("b"))
    total = sum(law.values())
    out = []
    for seed in range(seeds):
        run = motes.sample(model, n, seed=seed, progress=False)
        rich = torch.tensor([float(text.count("b") == 2) for text in run.texts], dtype=torch.float64)
        w = run.log_weight.exp() / n / total
        out.append((float(w.sum()), float(w @ rich)))
    truth = (1.0, sum(v for text, v in law.items() if text.count(1) == 2) / total)
    return torch.tensor(out, dtype=torch.float64) - torch.tensor(truth, dtype=torch.float64)


def z_score(error: torch.Tensor) -> torch.Tensor:
    return error.mean(0) / (error.std(0) / math.sqrt(len(error)))


@pytest.mark.parametrize("settings", [{"sweeps": 2}, {"sweeps": 1, "temper": True, "ladder": [0.3, 1.0]}])
def test_normalisers_and_laws_of_longer_texts(settings):
    """60 runs of 20 particles: errors of 0.6 of Z, or of 0.046 in a share of 0.079, would be seen."""
    generation = Generation(table(), "", reward=steep, constraint=regex(PATTERN), max_tokens=5)
    error = estimates(ResampleMove(generation, **settings), 60, 20)
    assert (error.std(0) / math.sqrt(60) < torch.tensor([0.12, 0.0095])).all()
    assert (z_score(error).abs() < Z).all()


class Untilted(ResampleMove):
    """The broken twin: rewrites do not look at the reward."""

    def _rewritten(self, rng, particles, now):
        return super()._rewritten(rng, particles, 0.0)


@pytest.mark.parametrize("settings", [{"sweeps": 2}, {"sweeps": 1, "temper": True, "ladder": [0.3, 1.0]}])
def test_a_rewrite_without_the_reward_is_noticed(settings):
    generation = Generation(table(), "", reward=steep, constraint=regex(PATTERN), max_tokens=5)
    assert z_score(estimates(Untilted(generation, **settings), 60, 20))[1] > 6


def ends_in_b(text: str) -> bool:
    return "aa" not in text and text.endswith("b")


def by_rejection(kind, runs: int) -> dict[tuple[int, ...], float]:
    """z of the weight of each text after rewrites, where tokens are found by rejection; runs of 20 particles."""
    tested = predicate(lambda text: "aa" not in text, complete=ends_in_b)
    model = kind(Generation(table(), "", constraint=tested, max_tokens=4), sweeps=2)
    law = {t: v for t, v in exact(4).items() if ends_in_b("".join("ab"[k] for k in t if k < 2)) and v > 0.003}
    found = {text: torch.zeros(runs, dtype=torch.float64) for text in law}
    for seed in range(runs):
        particles = motes.sample(model, 20, seed=seed, progress=False).particles
        for text, w in zip(texts_of(particles), (particles.log_weight.exp() / 20).tolist(), strict=True):
            if text in law:
                found[text][seed] += w
    return {text: float(z_score(found[text] - law[text])) for text in law}


def test_texts_found_by_rejection_keep_their_random_weights():
    """Errors of a half to the whole of a text's weight would be seen."""
    assert max(abs(z) for z in by_rejection(ResampleMove, 60).values()) < Z


def test_random_weights_left_out_are_noticed():
    assert max(abs(z) for z in by_rejection(Greedy, 60).values()) > 6


def test_a_poor_population_becomes_rich_again():
    """Few texts survive a steep reward; after rewriting many differ, and the mean number of "b" is nearer the truth."""

    def reward(texts):
        return torch.tensor([1.5 * text.count("b") for text in texts], dtype=torch.float64)

    law = exact(8, reward=lambda text: 1.5 * text.count("b"))
    truth = sum(v * text.count(1) for text, v in law.items()) / sum(law.values())
    generation = Generation(table(), "", reward=reward, max_tokens=8)
    off, distinct = [], []
    for seed in range(5):
        poor = motes.sample(generation, 200, seed=seed, progress=False)
        rich = motes.sample(ResampleMove(generation, sweeps=12), 200, seed=seed, progress=False)
        assert rich.log_evidence == pytest.approx(poor.log_evidence) and rich.ess == pytest.approx(200)
        assert rich.trace["distinct"][-1] == len(set(texts_of(rich.particles)))
        distinct.append((len(set(poor.draws(200))), len(set(rich.texts))))
        count = [
            sum(text.count("b") * w for text, w in zip(r.texts, r.weight.tolist(), strict=True)) for r in (poor, rich)
        ]
        off.append([c - truth for c in count])
    few, many = (sum(d) for d in zip(*distinct, strict=True))
    before, after = torch.tensor(off).square().mean(0).sqrt().tolist()
    assert many > 1.4 * few
    assert after < 0.6 * before


def test_temperatures_are_chosen_and_can_be_frozen():
    generation = Generation(table(), "", reward=steep, constraint=regex(PATTERN), max_tokens=8)
    model = ResampleMove(generation, temper=True, conditional_ess=0.7, sweeps=2)
    run = motes.sample(model, 100, seed=0, progress=False)
    ladder = run.particles.shared["ladder"]
    assert len(ladder) > 2 and ladder == sorted(ladder) and ladder[-1] == 1.0
    truth = math.log(sum(exact(8, PATTERN, lambda text: 1.0 * text.count("b")).values()))
    assert abs(run.log_evidence - truth) < 0.5 and math.isnan(run.log_evidence_se)  # few had such texts at first
    frozen = model.freeze(run)
    assert motes.sample(frozen, 50, seed=1, progress=False).particles.shared["ladder"] == ladder
    with pytest.raises(MotesError, match="very model"):
        ResampleMove(generation, temper=True).freeze(run)


def test_a_run_resumes_in_every_phase(tmp_path):
    def model(reward=steep):
        return ResampleMove(Generation(table(), "", reward=reward, max_tokens=6), temper=True, sweeps=2)

    whole = motes.sample(model(), 30, seed=2, progress=False)
    for most in (3, 8):
        path = tmp_path / f"{most}.motes"
        motes.sample(model(), 30, seed=2, progress=False, max_steps=most, checkpoint=path)
        rest = motes.resume(path, model(), progress=False)
        assert rest.texts == whole.texts
        assert torch.equal(rest.log_weight, whole.log_weight)

    def other(texts):
        return steep(texts) + 1

    other.__name__ = "steep"
    motes.sample(model(), 30, seed=2, progress=False, max_steps=8, checkpoint=path)
    with pytest.raises(FileError, match="reward"):
        motes.resume(path, model(other), progress=False)


def test_texts_of_a_transformer_keep_their_probabilities(tiny):
    """Rows of different lengths side by side: what is kept of each text is what the model says of it alone."""

    def reward(texts):
        return torch.tensor([0.3 * len(text) for text in texts], dtype=torch.float64)

    generation = Generation(tiny, "the cat", reward=reward, max_tokens=8)
    run = motes.sample(ResampleMove(generation, sweeps=3), 12, seed=0, progress=False)
    x = run.particles.x
    assert run.trace["moved"][-3:].max() > 0
    for i in range(run.n):
        length, prefixes, alone = int(x["length"][i]), tiny.prefixes(generation.prompt, 8), []
        for token in x["tokens"][i, :length].tolist():
            alone.append(float(torch.log_softmax(prefixes.logits[0].double(), -1)[token]))
            prefixes.extend(torch.tensor([0]), torch.tensor([token]))
        assert x["log_prob"][i, :length].tolist() == pytest.approx(alone, abs=1e-3)
        assert float(x["provisional"][i]) == pytest.approx(0.3 * len(run.texts[i]))


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"sweeps": 0}, "sweeps"),
        ({"conditional_ess": 1.0}, "conditional_ess"),
        ({"temper": True, "ladder": [0.5]}, "ladder"),
        ({"ladder": [1.0]}, "ladder"),
    ],
)
def test_wrong_settings_are_refused(settings, match):
    with pytest.raises(MotesError, match=match):
        ResampleMove(Generation(table(), "", reward=rewards, max_tokens=2), **settings)


def test_what_cannot_be_rewritten_or_tempered_is_refused():
    with pytest.raises(MotesError, match="TableModel"):
        ResampleMove(table())
    with pytest.raises(MotesError, match="reward"):
        ResampleMove(Generation(table(), "", max_tokens=2), temper=True)


def test_masses_of_two_kinds_are_refused(monkeypatch):
    """With look-ahead a tested token has another random weight than a rewrite gives it."""
    generation = Generation(table(), "", reward=rewards, constraint=predicate(ends_in_b), max_tokens=2)
    ResampleMove(generation)
    monkeypatch.setattr(generation, "settings", lambda: {"lookahead": 2})
    with pytest.raises(MotesError, match="lookahead"):
        ResampleMove(generation)
