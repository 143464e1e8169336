"""Categories, permutations and whole numbers: exact properties, and what trusted libraries get wrong."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motes.rng import Rng, discrete

R = Rng(99).at("discrete")
WEIGHTS = st.lists(
    st.one_of(
        st.sampled_from([-math.inf, 0.0, -745.0, 700.0, 1e-300, -1e300, math.log(1e-300), math.log(1e300)]),
        st.floats(-50, 50),
    ),
    min_size=1,
    max_size=12,
).filter(lambda w: max(w) > -math.inf)


@given(WEIGHTS, st.integers(0, 30), st.sampled_from([torch.float32, torch.float64]))
def test_a_category_has_weight(weights: list[float], seed: int, dtype: torch.dtype) -> None:
    w = torch.tensor(weights, dtype=dtype)
    if not bool((w > -math.inf).any()):
        return  # -1e300 is -inf in float32
    drawn = Rng(seed).categorical(w, 40)
    assert drawn.dtype == torch.int64 and bool(((drawn >= 0) & (drawn < len(w))).all())
    assert bool((w[drawn] > -math.inf).all())
    # a row of its own is the same law, and a shift of the weights changes nothing that can be seen
    rows = Rng(seed).categorical(w.expand(40, -1).contiguous())
    assert torch.equal(rows, drawn)


def test_the_ends_of_the_unit_interval_select_the_ends() -> None:
    w = torch.tensor([[-math.inf, 0.3, -math.inf, 0.1, -math.inf]], dtype=torch.float64)
    ends = torch.tensor([[2.0**-53, 1 - 2.0**-53]], dtype=torch.float64)
    assert discrete.invert(w, ends).tolist() == [[1, 3]]
    for k in (1, 2, 3, 7, 1000):  # u * total must stay below the total, whatever its last bits are
        w = torch.full((1, k + 1), math.log(1 / 3), dtype=torch.float64)
        w[0, k] = -math.inf
        assert discrete.invert(w, ends).tolist() == [[0, k - 1]]


def test_inversion_is_exact() -> None:
    """Category k is drawn exactly for u in [W_{k-1}, W_k) / W."""
    p = torch.tensor([[0.25, 0.0, 0.5, 0.25]], dtype=torch.float64)
    u = torch.tensor([[0.1, 0.25 - 2**-53, 0.25, 0.5, 0.75 - 2**-53, 0.75, 0.99]], dtype=torch.float64)
    assert discrete.invert(p.log(), u).tolist() == [[0, 0, 2, 2, 2, 3, 3]]


def test_more_than_two_to_the_24_categories() -> None:
    """torch.multinomial never draws from the upper half of these."""
    k = (1 << 24) + (1 << 20)
    w = torch.zeros(k)
    w[: k // 2] = math.log(2.0)
    drawn = R.categorical(w, 3000)
    upper = int((drawn >= k // 2).sum())
    # binomial(3000, 1/3): 1000 +- 26; 5 standard deviations, alpha 6e-7
    assert abs(upper - 1000) < 130
    # and beyond 2^24, where float32 sums stand still: 118 expected, alpha 1e-6 at 66
    assert int((drawn >= 1 << 24).sum()) > 66
    assert len(drawn.unique()) > 2990


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([[0.0, 1.0], [math.nan, 0.0]], r"NaN among the log-weights \(rows \[1\]\)"),
        ([[0.0, 1.0], [math.inf, 0.0]], r"\+inf among the log-weights \(rows \[1\]\)"),
        ([[-math.inf, -math.inf], [0.0, 0.0]], r"all log-weights are -inf.*\(rows \[0\]\)"),
        ([math.nan, 0.0], "NaN among the log-weights; mend"),
        ([-math.inf], "nothing to draw"),
        ([], r"K > 0, got \(0,\)"),
        (0.0, r"got \(\)"),
        ([[[0.0]]], r"got \(1, 1, 1\)"),
    ],
)
def test_weights_that_are_refused(weights: object, words: str) -> None:
    w = torch.tensor(weights, dtype=torch.float64)
    with pytest.raises(ValueError, match=words):
        R.categorical(w, None if w.ndim != 1 else 5)


def test_rows_and_n_must_agree() -> None:
    assert R.categorical(torch.zeros(3, 2), 3).shape == (3,)
    with pytest.raises(ValueError, match="n = 4 does not agree with 3 rows"):
        R.categorical(torch.zeros(3, 2), 4)
    assert R.categorical(torch.zeros(0, 2)).shape == (0,) and R.categorical(torch.zeros(4), 0).shape == (0,)


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(0, 30), st.sampled_from([torch.float32, torch.float64]))
def test_rows_that_are_named_draw_what_their_copies_would(rows: list[int], seed: int, dtype: torch.dtype) -> None:
    row = torch.tensor(rows, dtype=torch.int64)
    w = Rng(7).normal((5, 9)).to(dtype)
    w[2, 3:] = -math.inf
    drawn = Rng(seed).categorical(w, row=row)
    assert torch.equal(drawn, Rng(seed).categorical(w[row]))
    assert not len(rows) or not torch.equal(drawn + 1, Rng(seed).categorical(w[row]))
    shard = torch.arange(len(rows)) + 3
    assert torch.equal(Rng(seed).shard(shard).categorical(w, row=row), Rng(seed).shard(shard).categorical(w[row]))


def test_rows_that_nobody_names_may_be_empty() -> None:
    w = torch.zeros(3, 2)
    w[1] = -math.inf
    assert R.categorical(w, row=torch.tensor([2, 0, 2])).shape == (3,)
    with pytest.raises(ValueError, match=r"all log-weights are -inf.*\(rows \[1\]\)"):
        R.categorical(w, row=torch.tensor([2, 1]))
    with pytest.raises(ValueError, match=r"names rows of log-weights \(R, K\), n = 2 of them; got \(3,\)"):
        R.categorical(w, 2, row=torch.tensor([2, 0, 2]))


@given(st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_permutations(n: int, seed: int) -> None:
    assert torch.equal(Rng(seed).permutation(n).sort().values, torch.arange(n))


@given(st.integers(1, 2**32), st.integers(0, 1000))
def test_integers_are_the_high_part_of_the_product(high: int, seed: int) -> None:
    drawn = Rng(seed).integers((5,), high)
    words = Rng(seed)._draw("bits", "integers", (5, 2), torch.int64).tolist()
    assert drawn.tolist() == [((a << 32 | b) * high) >> 64 for a, b in words]
    assert bool(((drawn >= 0) & (drawn < high)).all())


def test_degenerate_parameters() -> None:
    assert R.bernoulli(torch.tensor([0.0, 1.0])).tolist() == [False, True]
    assert R.poisson(torch.zeros(4)).tolist() == [0.0] * 4
    assert R.binomial(torch.tensor([0.0, 9.0, 9.0]), torch.tensor([0.5, 0.0, 1.0])).tolist() == [0.0, 0.0, 9.0]
    assert R.binomial(1000, torch.tensor([0.0, 1.0])).tolist() == [0.0, 1000.0]
    assert R.gamma((3,), 1e-9).tolist() == [torch.finfo(torch.float64).tiny] * 3
    assert R.gamma((3,), 1e-4, torch.float32).log().isfinite().all()
    assert bool(((b := R.beta((2000,), 1e-3, 1e-3)) > 0).all()) and bool((b < 1).all())
    assert R.dirichlet((500,), torch.full((4,), 1e-3)).isfinite().all()
    for rate in (0.5, 12.0):
        assert R.poisson(rate).shape == ()


def test_values_do_not_depend_on_other_elements() -> None:
    """Small and large rates are drawn by different methods; which others are in the batch must not matter."""
    rate = torch.tensor([0.3, 25.0, 9.0, 500.0])
    both = R.poisson(rate)
    for i in range(4):
        assert R.shard(torch.tensor([i])).poisson(rate[i : i + 1])[0] == both[i]
    p, total = torch.tensor([0.3, 0.9, 0.5]), torch.tensor([8.0, 700.0, 10.0])
    both = R.binomial(total, p)
    for i in range(3):
        assert R.shard(torch.tensor([i])).binomial(total[i : i + 1], p[i : i + 1])[0] == both[i]
    a = torch.tensor([0.2, 3.0, 1.0])
    both = R.gamma((3,), a)
    for i in range(3):
        assert R.shard(torch.tensor([i])).gamma((1,), a[i : i + 1])[0] == both[i]
