"""Rules against direct computation: what they keep, what they draw, and the mass that they say they kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.errors import MotesError
from motes.language import nucleus, temperature, top_k

ROW = st.lists(st.floats(-30, 5), min_size=1, max_size=12)


def log_softmax(row: list[float]) -> torch.Tensor:
    return torch.log_softmax(torch.tensor([row], dtype=torch.float64), -1)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(ROW, st.floats(0.01, 1.0))
def test_a_nucleus_is_the_smallest_set_that_reaches_its_mass(row, mass):
    log_prob = log_softmax(row)
    out, kept = nucleus(mass)(log_prob)
    p, inside = log_prob[0].exp(), torch.isfinite(out[0])
    total = float(p[inside].sum())
    assert float(kept[0].exp()) == pytest.approx(total, abs=1e-12)
    assert total >= mass - 1e-9
    assert total - float(p[inside].min()) < mass + 1e-9
    assert float(p[~inside].max() if (~inside).any() else 0) <= float(p[inside].min())
    torch.testing.assert_close(out[0][inside].exp(), p[inside] / total)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(ROW, st.floats(0.05, 20))
def test_a_temperature_is_a_power_and_keeps_the_mass_of_it(row, t):
    log_prob = log_softmax(row)
    out, kept = temperature(t)(log_prob)
    power = log_prob.exp() ** (1 / t)
    torch.testing.assert_close(kept.exp(), power.sum(-1), rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(out.exp(), power / power.sum(-1, keepdim=True), rtol=1e-9, atol=1e-12)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(ROW, st.integers(1, 14))
def test_top_k_keeps_k_tokens(row, k):
    log_prob = log_softmax(row)
    out, kept = top_k(k)(log_prob)
    inside = torch.isfinite(out[0])
    assert int(inside.sum()) == min(k, len(row))
    assert float(kept[0].exp()) == pytest.approx(float(log_prob[0].exp().sort(descending=True).values[:k].sum()))


def test_rules_leave_a_law_alone_where_they_should():
    log_prob = log_softmax([0.3, -1.0, 2.0])
    for rule in (temperature(1.0), nucleus(1.0), top_k(3)):
        out, kept = rule(log_prob)
        torch.testing.assert_close(out, log_prob)
        torch.testing.assert_close(kept, torch.zeros(1, dtype=torch.float64), atol=1e-12, rtol=0)


def test_of_equal_tokens_the_first_are_kept():
    out, _ = nucleus(0.5)(log_softmax([0.0, 0.0, 0.0, 0.0]))
    assert torch.isfinite(out[0]).tolist() == [True, True, False, False]
    out, _ = top_k(1)(log_softmax([0.0, 0.0]))
    assert torch.isfinite(out[0]).tolist() == [True, False]


@pytest.mark.parametrize("rule, value", [(temperature, 0), (temperature, -1.0), (temperature, float("nan"))])
def test_a_wrong_temperature_is_refused(rule, value):
    with pytest.raises(MotesError, match="positive"):
        rule(value)


@pytest.mark.parametrize("value", [0, 1.5, float("nan")])
def test_a_wrong_nucleus_is_refused(value):
    with pytest.raises(MotesError, match="nucleus"):
        nucleus(value)


@pytest.mark.parametrize("value", [0, 2.5])
def test_a_wrong_top_k_is_refused(value):
    with pytest.raises(MotesError, match="top_k"):
        top_k(value)
