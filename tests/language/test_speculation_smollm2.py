"""Short texts of the real model: reading ahead gives the law of plain sampling, by a two-sample test."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chi2

import motes
from motes.language import Generation
from motes.language.speculation import prefetch, speculating

PROMPT = "red, green, blue, green, red, green, blue, red, blue, blue, green, red,"
BATCH = 500


def short_texts(model, count: int, first_seed: int) -> Counter[str]:
    """Texts of three tokens behind a prompt that repeats itself, so that guesses are made and some are right."""
    job = Generation(model, PROMPT, chat=False, max_tokens=3)
    found: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + count // BATCH):
        found.update(motes.sample(job, BATCH, seed=seed, progress=False).texts)
    return found


def chance(a: Counter[str], b: Counter[str]) -> float:
    """The p-value of the two-sample chi-square test; texts seen fewer than 20 times are one cell."""
    cells = [t for t in {*a, *b} if a[t] + b[t] >= 20]
    pairs = [(a[t], b[t]) for t in cells]
    pairs.append((a.total() - sum(x for x, _ in pairs), b.total() - sum(y for _, y in pairs)))
    pairs = [(x, y) for x, y in pairs if x + y]
    assert a.total() == b.total() and len(pairs) > 3
    return float(chi2.sf(sum((x - y) ** 2 / (x + y) for x, y in pairs), len(pairs) - 1))


def flattened(self, ask, token, rows, real=prefetch.PrefetchedPrefixes._read):
    """The broken twin: the laws behind the guesses are not the model's own."""
    out = real(self, ask, token, rows)
    self.known = [laws / 2 for laws in self.known]
    return out


@pytest.mark.parametrize("count", [BATCH, pytest.param(5000, marks=pytest.mark.slow)])
def test_texts_read_ahead_have_the_law_of_plain_texts(smollm2, monkeypatch, count):
    """Level 1e-6. At 5,000 a text of probability 0.1 that came a third more or less often would be seen."""
    plain = short_texts(smollm2, count, 0)
    quick = speculating(smollm2)
    assert chance(plain, short_texts(quick, count, 1000)) > 1e-6
    assert quick.counts["guessed"] > quick.counts["right"] > 0
    monkeypatch.setattr(prefetch.PrefetchedPrefixes, "_read", flattened)
    assert chance(plain, short_texts(speculating(smollm2), count, 1000)) < 1e-6
