"""Log-weights: known values, ends of the range, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.core.weights import (
    check_log_weight,
    conditional_ess,
    entropy,
    ess,
    log_mean_exp,
    max_weight,
    normalise,
    total,
)
from motes.errors import AllWeightsZero, NanLogPotential, ShapeError

INF = math.inf


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_known_values():
    w = vector(math.log(1), math.log(2), -INF, math.log(5))
    assert log_mean_exp(w) == pytest.approx(math.log(2), abs=1e-15)
    assert ess(w) == pytest.approx(64 / 30, abs=1e-14)
    assert normalise(w).tolist() == pytest.approx([1 / 8, 2 / 8, 0, 5 / 8], abs=1e-16)
    assert max_weight(w) == pytest.approx(5 / 8, abs=1e-16)
    h = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    assert entropy(w) == pytest.approx(h, abs=1e-15)
    # W g = (1, 2 * 3, 0, 5 * 2) / 8, W g^2 = (1, 18, 0, 20) / 8
    g = vector(0.0, math.log(3), 7.0, math.log(2))
    assert conditional_ess(w, g) == pytest.approx(4 * (17 / 8) ** 2 / (39 / 8), abs=1e-14)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(st.one_of(st.floats(-50, 50), st.sampled_from([-INF, 0.0, -700.0])), min_size=1, max_size=40),
    st.sampled_from([0.0, 1e300, -1e300, 690.0, -745.0]),
)
def test_a_common_factor_does_not_matter(values, shift):
    """Weights from exp(-1e300) to exp(1e300): only their ratios count, as far as float64 can tell them apart."""
    w = vector(*values)
    if w.max() == -INF:
        assert ess(w) == 0 and log_mean_exp(w) == -INF and math.isnan(entropy(w)) and math.isnan(max_weight(w))
        return
    moved = w + shift
    back = moved - shift  # what is left of the differences after rounding
    assert log_mean_exp(moved) - shift == pytest.approx(log_mean_exp(back), abs=abs(shift) * 1e-15 + 1e-12)
    assert ess(moved) == pytest.approx(ess(back), rel=1e-9)
    assert 1 - 1e-12 <= ess(moved) <= len(w) * (1 + 1e-12)
    assert float(normalise(moved).sum()) == pytest.approx(1, abs=1e-12)
    assert 0 <= entropy(moved) <= math.log(len(w)) + 1e-12
    assert conditional_ess(moved, torch.full_like(w, 3.0)) == pytest.approx(len(w), rel=1e-12)


def test_sums_do_not_depend_on_threads():
    x = torch.arange(1, 1_000_001, dtype=torch.float64).sin()
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append((total(x), log_mean_exp(x), ess(x)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    assert found[0][0] == pytest.approx(math.fsum(x.tolist()), abs=1e-8)


@pytest.mark.parametrize(("bad", "name"), [(math.nan, "NaN"), (INF, r"\+inf")])
def test_what_is_no_weight_is_named(bad, name):
    w = torch.zeros(100, dtype=torch.float64)
    w[17] = w[90] = bad
    with pytest.raises(NanLogPotential, match=rf"Tilt: the log-weight is {name} for particles \[17, 90\] at t=12"):
        check_log_weight(w, 12, "Tilt")
    with pytest.raises(NanLogPotential):
        normalise(w)


def test_nothing_to_normalise():
    with pytest.raises(AllWeightsZero, match="all 3 weights are zero"):
        normalise(vector(-INF, -INF, -INF))
    check_log_weight(vector(-INF, -INF), 0, "legal: the engine decides what to do")


@pytest.mark.parametrize("w", [torch.zeros(3), torch.zeros((2, 2), dtype=torch.float64), vector()])
def test_shapes(w):
    with pytest.raises(ShapeError, match="float64 tensor of shape"):
        check_log_weight(w, 0, "Tilt")


def test_conditional_ess_of_the_dead():
    assert conditional_ess(vector(0.0, -INF), vector(-INF, 0.0)) == 0
    assert conditional_ess(vector(0.0, -INF), vector(-1.0, math.nan)) == pytest.approx(2)
