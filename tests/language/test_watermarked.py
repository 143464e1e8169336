"""Watermarked draws keep the law of whole texts over keys; what detectors say; the best of n by a reward."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

import motes
from language.tables import exact, table
from motes.errors import MotesError, MotesWarning
from motes.language import TableModel, gumbel_watermark, nucleus, predicate, regex
from motes.language.search import (
    Watermarked,
    alignment_resampling,
    best_of_n_law,
    draw_keys,
    unbiased_mean,
)

FLAT = TableModel(list("abcdefghijklmno") + ["."], torch.cat([torch.zeros(17, 15), torch.full((17, 1), -3.0)], 1))


def drawn(cls, keys: int, n: int, max_tokens: int, width: int = 1) -> list[list[tuple[int, ...]]]:
    out = []
    for key in range(keys):
        run = motes.sample(cls(table(), "", key=key, width=width, max_tokens=max_tokens), n, seed=key, progress=False)
        x = run.particles.x
        out.append([tuple(x["tokens"][i, : int(x["length"][i])].tolist()) for i in range(n)])
    return out


def largest_z(counts: Counter, law: dict[tuple[int, ...], float], n: int) -> float:
    assert set(counts) <= set(law)
    return max(abs(counts[t] - n * p) / math.sqrt(n * p * (1 - p)) for t, p in law.items() if n * p > 5)


class Reused(Watermarked):
    """The broken twin: noise by key also where the tokens before stood before."""

    def refreshed(self, again):
        return torch.zeros_like(again)


def test_whole_texts_have_the_model_s_law_over_keys():
    """40 keys of 100 draws; the one token before repeats in most texts. An error of 0.02 at p = 0.06 would be seen."""
    counts = Counter(t for texts in drawn(Watermarked, 40, 100, 4) for t in texts)
    assert largest_z(counts, exact(4), 4000) < 4.9
    twin = Counter(t for texts in drawn(Reused, 10, 100, 4) for t in texts)
    assert largest_z(twin, exact(4), 1000) > 15  # "aaaa" comes far too often


def test_two_draws_of_one_key_are_independent():
    """600 pairs from as many keys: the law of the pair is the product."""
    pairs = Counter(tuple(texts) for texts in drawn(Watermarked, 600, 2, 1))
    law = exact(1)
    assert largest_z(pairs, {(s, t): p * q for s, p in law.items() for t, q in law.items()}, 600) < 4.9


def test_equal_keys_give_equal_texts_and_the_seed_decides_only_repeats():
    def texts(key: int, seed: int, width: int) -> list[str]:
        return motes.sample(
            Watermarked(FLAT, "", key=key, width=width, max_tokens=12), 3, seed=seed, progress=False
        ).texts

    assert texts(1, 0, 6) == texts(1, 9, 6) != texts(2, 0, 6)
    assert texts(1, 0, 0) != texts(1, 9, 0)  # without tokens before, every token but the first repeats


def test_the_watermark_is_that_of_the_rule():
    key = draw_keys(5, 2)[1]
    marked = motes.sample(Watermarked(FLAT, "", key=5, width=5, max_tokens=10), 2, seed=0, progress=False).texts[1]
    rule = motes.Generation(FLAT, "", rules=gumbel_watermark(key, width=5), max_tokens=10)
    assert motes.sample(rule, 1, seed=0, progress=False).texts[0] == marked


def test_detectors_find_the_draws_and_nothing_else():
    """Without the watermark p-values are uniform, the n keys taken into account: 300 texts, |z| < 4.9 of their mean."""
    marked = Watermarked(FLAT, "", key=11, width=3, max_tokens=30)
    run = motes.sample(marked, 8, seed=0, progress=False)
    x = run.particles.x
    for i in range(8):
        tokens = x["tokens"][i, : int(x["length"][i])]
        if len(tokens) >= 10:
            assert marked.detect(tokens, 8).p_value < 1e-3
    plain = motes.sample(motes.Generation(FLAT, "", max_tokens=12), 300, seed=4, progress=False).particles.x
    p = torch.tensor(
        [marked.detect(plain["tokens"][i, : int(plain["length"][i])], 4).p_value for i in range(300)]
    ).double()
    assert abs(float(p.mean()) - 0.5) / math.sqrt(1 / 12 / 300) < 4.9
    assert abs(float((p < 0.1).double().mean()) - 0.1) / math.sqrt(0.09 / 300) < 4.9
    best = torch.tensor([min(_alone(marked, t, 4)) for t in _texts(plain, 300)])  # the twin forgets that it tried four
    assert float((best < 0.1).double().mean()) > 0.25


def _texts(x, n: int) -> list[torch.Tensor]:
    return [x["tokens"][i, : int(x["length"][i])] for i in range(n)]


def _alone(marked: Watermarked, tokens: torch.Tensor, n: int) -> list[float]:
    rules = [gumbel_watermark(key, width=marked.width) for key in draw_keys(marked.key, n)]
    return [rule.detect(tokens, marked.model.vocabulary, marked.prompt).p_value for rule in rules]


@pytest.mark.parametrize("knobs, pattern", [({"constraint": regex("(ab?)*|b")}, "(ab?)*|b"), ({}, None)])
def test_weights_are_unbiased_under_a_constraint(knobs, pattern):
    z = []
    for key in range(60):
        model = Watermarked(table(), "", key=key, max_tokens=3, **knobs)
        z.append(math.exp(motes.sample(model, 20, seed=key, progress=False).log_evidence))
    found, truth = torch.tensor(z, dtype=torch.float64), sum(exact(3, pattern).values())
    if pattern is None:
        assert found.tolist() == pytest.approx([truth] * 60)
    else:
        assert abs(float((found.mean() - truth) / (found.std() / 60**0.5))) < 4.9


def test_rules_count_and_means_are_normalised():
    run = motes.sample(Watermarked(table(), "", key=0, rules=nucleus(0.6), max_tokens=2), 9, seed=0, progress=False)
    assert math.exp(run.log_evidence) == pytest.approx(0.7 * 0.8)
    assert float(unbiased_mean(run, lambda t: torch.ones(len(t))).value) == pytest.approx(0.7 * 0.8)


def length(texts: list[str]) -> torch.Tensor:
    return torch.tensor([float(len(t)) for t in texts])


def winners(n: int, keys: int, **knobs) -> Counter:
    return Counter(
        alignment_resampling(table(), "", length, n=n, key=k, seed=k, width=2, max_tokens=2, **knobs).tokens
        for k in range(keys)
    )


def test_the_winner_has_the_law_of_best_of_n():
    """300 keys, n = 3: an error of about 0.14 of the largest probability would be seen; p itself is far off."""
    law = exact(2)
    reward, p = length(["".join("ab"[v] for v in t if v < 2) for t in law]), torch.tensor(list(law.values()))
    truth = dict(zip(law, best_of_n_law(reward, p.log(), 3).exp().tolist(), strict=True))
    counts = winners(3, 300)
    assert largest_z(counts, truth, 300) < 4.9
    assert largest_z(counts, law, 300) > 6
    assert largest_z(winners(1, 150), law, 150) < 4.9


def test_with_a_level_only_recognised_draws_compete():
    best = alignment_resampling(FLAT, "", length, n=6, key=3, seed=0, width=3, level=1e-3, max_tokens=20)
    assert best.detection.p_value <= 1e-3 and 1 <= best.verified <= 6
    assert best.detection.p_value == pytest.approx(
        1 - (1 - min(_alone(Watermarked(FLAT, "", key=3, width=3), torch.tensor(best.tokens), 6))) ** 6, rel=1e-6
    )
    assert best.reward == float(best.rewards.max()) == len(best.text)
    assert int(torch.isfinite(best.rewards).sum()) == best.verified
    with pytest.warns(MotesWarning, match="none of 2"):
        few = alignment_resampling(table(), "", length, n=2, key=3, seed=0, level=1e-6, max_tokens=3)
    assert few.verified == 0 and few.reward == float(few.rewards.max())


def test_what_competes_satisfies_the_constraint():
    asked = predicate(lambda t: "bb" not in t, complete=lambda t: t.endswith("b"))
    for key in range(20):
        best = alignment_resampling(table(), "", length, n=8, key=key, seed=0, constraint=asked, max_tokens=4)
        assert best.text.endswith("b") and "bb" not in best.text


@pytest.mark.parametrize("knobs", [{"n": 0}, {"level": 0.0}, {"key": -1}, {"width": -1}])
def test_wrong_knobs_are_refused(knobs):
    with pytest.raises(MotesError, match="must"):
        alignment_resampling(table(), "", length, **{"key": 0, "seed": 0, **knobs})
