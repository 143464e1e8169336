"""Optimal resampling, and sequential Monte Carlo over distinct texts: every outcome of small runs, walked through."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import motes
from language.tables import exact, spell, table
from language.test_exact import TOLERANCE, assert_same_law
from language.test_exact import mean_law as law_of_generation
from motes.errors import AllWeightsZero, EmptyConstraint, MotesError, ShapeError
from motes.language import Generation, Potential, nucleus, predicate, regex
from motes.language.generation.discrete_filter import Expansion
from motes.language.generation.optimal_resampling import thin
from motes.testing import enumerate_runs

WEIGHTS = {
    "one heavy": [0.7, 0.1, 0.1, 0.06, 0.04],
    "two heavy": [5.0, 4.0, 0.2, 0.1, 0.3, 0.05],
    "equal": [1.0, 1.0, 1.0, 1.0, 1.0],
    "ties at the edge": [2.0, 1.0, 1.0],
    "a gap": [0.3, 0.0, 0.3, 0.4, 0.2],
}
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


# ------------------------------------------------------------------------------------------------ the reduction


def threshold(w: list[float], n: int) -> float:
    """c with sum min(1, c w) = n, by bisection."""
    low, high = 0.0, n / min(v for v in w if v > 0)
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if sum(min(1.0, c * v) for v in w) < n else (low, c)
    return high


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_reduction_keeps_n_distinct_with_the_right_probabilities(name, n):
    """Every outcome: n are kept, each with probability min(1, c w), and the sum of the weights stays what it was."""
    w = WEIGHTS[name]
    total, found = 0.0, [0.0] * len(w)
    c = threshold(w, n)
    for p, (kept, log_q) in enumerate_runs(lambda rng: thin(rng, torch.tensor([w], dtype=torch.float64).log(), n)):
        total += p
        q = log_q[0].exp().tolist()
        if sum(v > 0 for v in w) <= n:
            assert kept[0].tolist() == [v > 0 for v in w] and set(q) == {1.0}
            c = math.inf
        else:
            assert q == pytest.approx([min(1.0, c * v) for v in w], abs=1e-12)
            assert sum(q) == pytest.approx(n, abs=1e-12)
            assert int(kept.sum()) == n or p < 1e-12
        at = torch.nonzero(kept[0])[:, 0].tolist()
        assert sum(w[i] / q[i] for i in at) == pytest.approx(sum(w), abs=1e-12) or p < 1e-12
        for i in at:
            found[i] += p * w[i] / q[i]
    assert total == pytest.approx(1, abs=1e-12)
    assert found == pytest.approx(w, abs=1e-12)


def test_rows_are_reduced_side_by_side():
    w = torch.tensor([[0.7, 0.1, 0.1, 0.06, 0.04], [0.5, 0.5, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]]).double()
    rng = motes.Rng(5)
    kept, log_q = thin(rng, w.log(), 3)
    assert kept.sum(1).tolist() == [3, 2, 3]
    alone, alone_q = thin(rng, w[2:].log(), 3, ids=torch.tensor([2]))
    assert torch.equal(alone[0], kept[2]) and torch.equal(alone_q[0], log_q[2])


def test_reduction_at_extreme_weights():
    """Weights over 400 orders of magnitude, and 100 000 candidates: the number kept is right and q adds up to it."""
    kept, log_q = thin(motes.Rng(0), torch.tensor([[0.0, -900.0, -901.0, -1.0]]).double(), 3)
    assert kept[0].tolist()[::3] == [True, True] and int(kept.sum()) == 3
    assert log_q.exp()[0].tolist() == pytest.approx([1, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 1], abs=1e-9)
    many = 3 * motes.Rng(1).normal((1, 100_000))
    kept, log_q = thin(motes.Rng(2), many, 64)
    assert int(kept.sum()) == 64 and float(log_q.exp().sum()) == pytest.approx(64, abs=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_reduction_varies_least(n):
    """The sum of variances w^2 (1 / q - 1) is convex in q; at its minimum under sum q = n and q <= 1 the slopes w / q
    of all q below 1 are equal, and those of the others no smaller."""
    w = torch.tensor([v for v in WEIGHTS["two heavy"] for _ in range(2)], dtype=torch.float64)
    w = w + 0.01 * torch.arange(len(w))
    kept, log_q = thin(motes.Rng(0), w[None].log(), n)
    q = log_q[0].exp()
    slope = w / q
    light = q < 1
    assert int(light.sum()) > n and float(q.sum()) == pytest.approx(n, abs=1e-12)
    assert slope[light].tolist() == pytest.approx([float(slope[light][0])] * int(light.sum()), rel=1e-12)
    assert bool((slope[~light] >= slope[light].max() - 1e-12).all()) and int(kept.sum()) == n


def test_arguments_of_the_reduction():
    with pytest.raises(MotesError, match="at least 1"):
        thin(motes.Rng(0), torch.zeros(1, 3).double(), 0)
    with pytest.raises(ShapeError, match="float64"):
        thin(motes.Rng(0), torch.zeros(3), 1)


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
    law, z = mean_law(Expansion(table(), "", max_tokens=2, **settings), n)
    assert z == pytest.approx(sum(truth(2, settings).values()), abs=TOLERANCE)
    assert_same_law(law, truth(2, settings))


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_three_tokens_are_unbiased_in_every_outcome(n):
    law, z = mean_law(Expansion(table(), "", max_tokens=3, **GUIDED), n)
    assert z == pytest.approx(sum(truth(3, GUIDED).values()), abs=TOLERANCE)
    assert_same_law(law, truth(3, GUIDED))


@pytest.mark.parametrize(
    "n, factor, most",
    [(1, 2, 1), (1, 1, 2), *(pytest.param(n, k, 2, marks=pytest.mark.slow) for n, k in ((2, 1), (1, 2)))],
)
def test_random_candidates_are_unbiased_in_every_outcome(n, factor, most):
    law, z = mean_law(Expansion(table(), "", max_tokens=most, factor=factor, **GUIDED), n)
    assert z == pytest.approx(sum(truth(most, GUIDED).values()), abs=TOLERANCE)
    assert_same_law(law, truth(most, GUIDED))


@pytest.mark.parametrize("globalise", [True, False])
def test_rules_restrict_texts_or_renormalise_tokens(globalise):
    """A nucleus of 0.6 keeps {a}, mass 0.7, at the start, and after "a" {a, end}, mass 0.8."""
    law, _ = mean_law(Expansion(table(), "", rules=[nucleus(0.6)], max_tokens=2, globalise=globalise), 1)
    restricted = {(0, 0): 0.7 * 0.5, (0, 2): 0.7 * 0.3}
    assert_same_law(law, restricted if globalise else {text: v / 0.56 for text, v in restricted.items()})


class Kept(Expansion):
    """The broken twin: what the twist lent is never taken back."""

    def _judged(self, beam, t, entry, token, log_prob, included, before):
        out = super()._judged(beam, t, entry, token, log_prob, included, torch.zeros_like(before))
        return (*out[:4], torch.zeros_like(out[4]))


class Light(Expansion):
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

    class Uncounted(Expansion):
        def _drawn(self, rng, beam, n):
            entry, token, log_prob, drawn = super()._drawn(rng, beam, n)
            return entry, token, log_prob, torch.zeros_like(drawn)

    law, _ = mean_law(Uncounted(table(), "", max_tokens=1, factor=2), 1)
    assert max(abs(law.get(text, 0.0) - value) for text, value in exact(1).items()) > 0.02


@pytest.mark.parametrize("factor", [None, 2])
def test_texts_are_distinct(factor):
    run = motes.sample(Expansion(table(), "", max_tokens=8, factor=factor), 50, seed=1, progress=False)
    texts = [text for text, w in zip(run.texts, run.log_weight.tolist(), strict=True) if w > -math.inf]
    ended = {tuple(x.tolist()) for x in run.particles.x["tokens"][: len(texts)]}
    assert len(texts) == 50 == len(ended)


def test_as_many_particles_as_texts_are_exact():
    settings = {"constraint": regex(PATTERN), "reward": rewards, "twist": critic}
    run = motes.sample(Expansion(table(), "", max_tokens=3, **settings), 40, seed=0, progress=False)
    law = exact(3, PATTERN, reward=worth)
    assert run.log_evidence == pytest.approx(math.log(sum(law.values())), abs=1e-12)
    error = Expansion(table(), "", max_tokens=3).standard_error(run.particles)
    assert error.value == 0.0 and error.method == "every text was counted"
    few = motes.sample(Expansion(table(), "", max_tokens=3), 1, seed=0, progress=False)
    assert math.isnan(Expansion(table(), "", max_tokens=3).standard_error(few.particles).value)


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
    model = Expansion(
        table(), "", max_tokens=4, factor=2, reward=rewards, twist=rewards, constraint=regex("[ab]*b[ab]*")
    )
    found = z_hats(model, 30, 80)
    z = sum(exact(4, "[ab]*b[ab]*", reward=worth).values())
    se = float(found.std()) / math.sqrt(len(found))
    assert se < 0.02 * z
    assert abs(float(found.mean()) - z) < 4.9 * se


def test_every_continuation_varies_less_than_drawn_tokens():
    """The mean squared error of Z with 8 particles, of `Generation` over that of `Expansion`: above 10."""
    settings = {"reward": rewards, "twist": rewards, "constraint": regex("(ab?)*"), "max_tokens": 6}
    z = sum(exact(6, "(ab?)*", reward=worth).values())
    drawn = (z_hats(Generation(table(), "", **settings), 8, 30) - z).square().mean()
    every = (z_hats(Expansion(table(), "", **settings), 8, 30) - z).square().mean()
    assert float(drawn / every) > 10


def test_a_saved_run_goes_on(tmp_path):
    model = Expansion(table(), "", max_tokens=6, reward=rewards, twist=critic, constraint=regex(PATTERN))
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
        Expansion(table(), "", **settings)


def test_a_constraint_that_leaves_nothing():
    with pytest.raises((EmptyConstraint, AllWeightsZero)):
        motes.sample(Expansion(table(), "", rules=[nucleus(0.6)], constraint=regex("b"), max_tokens=3), 4, seed=0)
