"""Arithmetic sampling and beams without replacement: laws, counts, inclusion probabilities and unbiased weights."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import pytest
import torch

import motes
from language.tables import exact, table
from motes.core.smc import steps
from motes.errors import AllWeightsZero, MotesError
from motes.language import nucleus, regex
from motes.language.search.arithmetic import Arithmetic
from motes.language.search.poisson_beam import PoissonBeam
from motes.language.search.population import unbiased_mean
from motes.language.search.stochastic_beam import StochasticBeam
from motes.testing import enumerate_runs

METHODS = [Arithmetic, StochasticBeam, PoissonBeam]
PATTERN = "(ab?)*|b"
LAW = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04], dtype=torch.float64)


def texts_of(particles) -> list[tuple[int, ...]]:
    x = particles.x
    return [tuple(x["tokens"][i, : int(x["length"][i])].tolist()) for i in range(particles.n)]


def evidence(cls, n, seeds, max_tokens=3, **knobs) -> torch.Tensor:
    out = []
    for seed in range(seeds):
        try:
            run = motes.sample(cls(table(), "", max_tokens=max_tokens, **knobs), n, seed=seed, progress=False)
            out.append(math.exp(run.log_evidence))
        except AllWeightsZero:
            out.append(0.0)
    return torch.tensor(out, dtype=torch.float64)


def z_score(x: torch.Tensor, truth: float) -> float:
    return float((x.mean() - truth) / (x.std() / len(x) ** 0.5))


@pytest.mark.parametrize("cls", METHODS)
@pytest.mark.parametrize("n", [1, 3])
def test_the_normaliser_under_a_constraint_is_unbiased(cls, n):
    """100 runs: errors of about 5 standard errors, 12 to 40 % of Z, would be seen."""
    found = evidence(cls, n, 100, constraint=regex(PATTERN))
    assert abs(z_score(found, sum(exact(3, PATTERN).values()))) < 4.9


@pytest.mark.parametrize("cls", METHODS)
def test_rules_count_in_the_weights(cls):
    """A nucleus of 0.6 keeps 0.7 at the start and, after "a", 0.8."""
    found = evidence(cls, 2, 100, max_tokens=2, rules=[nucleus(0.6)])
    assert float(found.mean()) == pytest.approx(0.7 * 0.8, abs=1e-12 if cls is not StochasticBeam else 0.2)


def poisson_law(cls, n: int, pattern: str | None, max_tokens: int = 2):
    law = defaultdict(float)

    def run(rng):
        last = None
        try:
            for state in steps(
                cls(table(), "", max_tokens=max_tokens, constraint=pattern and regex(pattern)), n, seed=rng
            ):
                last = state.particles
        except AllWeightsZero:
            return []
        assert last is not None
        return list(zip(texts_of(last), (last.log_weight.exp() / n).tolist(), strict=True))

    for p, outcome in enumerate_runs(run):
        for text, weight in outcome:
            law[text] += p * weight
    return law


@pytest.mark.parametrize("n, pattern", [(1, None), (2, None), (3, None), (2, "ab?|b|aab")])
def test_poisson_beams_are_unbiased_in_every_outcome(n, pattern):
    law, expected = poisson_law(PoissonBeam, n, pattern), exact(2, pattern)
    for text, value in expected.items():
        assert law[text] == pytest.approx(value, abs=1e-12)


class Unweighted(PoissonBeam):
    """The broken twin: inclusion probabilities of the last token alone."""

    def choose(self, rng, beam, more, shared, n):
        more = {"log_included": torch.zeros_like(more["log_included"])}
        return super().choose(rng, beam, more, shared, n)


def test_inclusion_probabilities_that_forget_are_noticed():
    law, expected = poisson_law(Unweighted, 1, None), exact(2)
    assert max(abs(law[text] - value) for text, value in expected.items()) > 0.05


@pytest.mark.parametrize("n", [5, 16, 64])
def test_counts_of_arithmetic_sampling_are_next_to_their_expectation(n):
    law = exact(4)
    for seed in range(60):
        counts = Counter(
            texts_of(motes.sample(Arithmetic(table(), "", max_tokens=4), n, seed=seed, progress=False).particles)
        )
        for text, p in law.items():
            assert math.floor(n * p - 1e-9) <= counts[text] <= math.ceil(n * p + 1e-9)


class Wrong(Arithmetic):
    """The broken twin: the lattice of the published code."""

    def lattice(self, n):
        return torch.arange(n, dtype=torch.float64) / (n + 1)


def test_the_lattice_of_the_published_code_is_noticed():
    law, bad = exact(4), 0
    for seed in range(60):
        counts = Counter(
            texts_of(motes.sample(Wrong(table(), "", max_tokens=4), 16, seed=seed, progress=False).particles)
        )
        bad += sum(not math.floor(16 * p) <= counts[text] <= math.ceil(16 * p) for text, p in law.items())
    assert bad > 10


def test_each_text_of_arithmetic_sampling_has_the_law_of_the_model():
    """350 single draws: a probability wrong by 0.13 would be seen."""
    law, runs = exact(2), 350
    counts = Counter(
        texts_of(motes.sample(Arithmetic(table(), "", max_tokens=2), 1, seed=s, progress=False).particles)[0]
        for s in range(runs)
    )
    for text, p in law.items():
        assert abs(counts[text] - runs * p) < 4.9 * math.sqrt(runs * p * (1 - p))


def test_deep_codes_are_refreshed():
    """Texts of 60 tokens spend 60 nats; 36 are in a number. 400 of them: the share of "a" after "a" is 1/2 to 0.02."""
    logits = torch.tensor([0.5, 0.5 - 1e-9, 1e-9]).double().log().expand(4, 3)
    model = motes.language.TableModel(["a", "b", "."], logits)
    run = motes.sample(Arithmetic(model, "", max_tokens=60), 400, seed=1, progress=False)
    late = torch.tensor([[c == "a" for c in text[50:]] for text in run.texts]).double()
    assert abs(float(late.mean()) - 0.5) < 4.9 * 0.5 / math.sqrt(4000)
    assert len(set(run.texts)) == 400


def test_a_stochastic_beam_is_drawing_without_replacement():
    """The first text of 2 has the law p, and pairs the law of two draws without replacement; 300 runs."""
    law, runs, pairs = exact(2), 300, Counter()
    for seed in range(runs):
        particles = motes.sample(StochasticBeam(table(), "", max_tokens=2), 2, seed=seed, progress=False).particles
        assert bool(particles.x["perturbed"][0] > particles.x["perturbed"][1])
        pairs[tuple(texts_of(particles))] += 1
    for (a, p), (b, q) in itertools.permutations(law.items(), 2):
        truth = p * q / (1 - p)
        assert abs(pairs[a, b] - runs * truth) < 4.9 * math.sqrt(runs * truth) + 1


def test_a_beam_as_wide_as_the_tree_is_exact():
    for cls in (StochasticBeam, PoissonBeam):
        run = motes.sample(cls(table(), "", max_tokens=3, constraint=regex(PATTERN)), 40, seed=0, progress=False)
        law = exact(3, PATTERN)
        assert run.log_evidence == pytest.approx(math.log(sum(law.values())), abs=1e-12)
        alive = run.log_weight > -math.inf
        found = dict(
            zip(
                [t for t, a in zip(texts_of(run.particles), alive, strict=True) if a],
                (run.log_weight[alive].exp() / 40).tolist(),
                strict=True,
            )
        )
        assert found == pytest.approx(law, abs=1e-12)


def test_the_error_bar_of_a_stochastic_beam_is_the_spread_over_runs():
    """Mean of the estimated variance against the variance of 300 runs, to a factor of 1.5."""

    def length(texts):
        return torch.tensor([len(t) for t in texts], dtype=torch.float64)

    truth = sum(p * sum(v < 2 for v in text) for text, p in exact(3).items())
    found = [
        unbiased_mean(motes.sample(StochasticBeam(table(), "", max_tokens=3), 6, seed=s, progress=False), length)
        for s in range(300)
    ]
    value = torch.stack([e.value for e in found])
    assert abs(z_score(value, truth)) < 4.9
    ratio = float(torch.stack([e.se for e in found]).square().mean() / value.var())
    assert 1 / 1.5 < ratio < 1.5


@pytest.mark.parametrize("cls", METHODS)
def test_a_saved_search_goes_on_where_it_was(cls, tmp_path):
    model = cls(table(), "", max_tokens=6, constraint=regex("[ab]*"))
    whole = motes.sample(model, 5, seed=2, progress=False)
    motes.sample(model, 5, seed=2, progress=False, max_steps=2, checkpoint=tmp_path / "run")
    again = motes.resume(tmp_path / "run", model, progress=False)
    assert torch.equal(again.log_weight, whole.log_weight) and again.texts == whole.texts


def test_error_bars_are_only_given_where_they_are_known():
    model = PoissonBeam(table(), "", max_tokens=4)
    run = motes.sample(model, 4, seed=0, progress=False)
    assert math.isnan(run.log_evidence_se) and "together" in run.standard_error.reason
    assert motes.sample(Arithmetic(table(), "", max_tokens=4), 4, seed=0, progress=False).log_evidence_se == 0
    plain = motes.sample(motes.Generation(table(), "", max_tokens=4), 4, seed=0, progress=False)
    with pytest.raises(MotesError, match="searches with weights"):
        unbiased_mean(plain, lambda texts: torch.ones(len(texts)))
