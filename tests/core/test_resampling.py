"""Every registered scheme: what it promises, at the ends of the range, on both routes, and at twenty million."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.core.resampling import _fast, find_scheme, schemes
from motes.core.resampling._grid import bits_for, ends, lattice, tally
from motes.errors import AllWeightsZero, MotesError, NanLogPotential, ShapeError, UnknownName
from motes.rng import Rng
from motes.testing.schemes import promises

INF = math.inf
ALL = list(schemes)
NEAR = 1e-9
"""How far a stretch of the line may be from n W_i for the sizes used here."""


def draw(name: str, log_weight: torch.Tensor, seed: int = 0, n: int | None = None) -> torch.Tensor:
    s = schemes[name]
    order = torch.arange(len(log_weight)).double().mul(2.3).sin() if s.needs_order else None
    return s(Rng(seed).at("resample", step=3), log_weight, n=n, order=order)


def vector(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


VALUES = st.one_of(
    st.sampled_from([0.0, -INF, math.log(2.0), -690.7755, 690.7755, -1e300, 1e300, -745.0]), st.floats(-20, 20)
)


@pytest.mark.parametrize("name", ALL)
@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(VALUES, min_size=1, max_size=40), st.integers(0, 2**64 - 1), st.sampled_from([None, 0, 1, 7, 100]))
def test_promises(name, values, seed, n):
    s, w = schemes[name], vector(values)
    n = len(w) if n is None or s.same_n else n
    if w.max() == -INF:
        with pytest.raises(AllWeightsZero, match=f"{name}: all {len(w)} weights are zero"):
            draw(name, w, seed)
        return
    children, expected = promises(s, w, n, seed=seed), n * torch.softmax(w, 0)
    if name in ("residual", "residual_stratified"):
        assert (children >= (expected - NEAR).floor()).all()
    if name == "stratified":
        assert ((children - expected).abs() < 2 + NEAR).all()
    if not (s.needs_order or name == "killing"):
        assert (draw(name, w, seed, n).diff() >= 0).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ([0.0, math.nan, 1.0], NanLogPotential),
        ([0.0, INF, 1.0], NanLogPotential),
        ([-INF, math.nan, -INF], NanLogPotential),
        ([-INF, -INF], AllWeightsZero),
        ([], ShapeError),
    ],
)
def test_what_is_refused(name, bad, error):
    with pytest.raises(error):
        draw(name, vector(bad))


def test_wrong_calls():
    w = vector([0.0, 1.0])
    with pytest.raises(ShapeError, match="float64"):
        schemes["systematic"](Rng(0), w.float())
    with pytest.raises(ShapeError, match="no order"):
        schemes["systematic_sorted"](Rng(0), w)
    with pytest.raises(ShapeError, match="or with NaN"):
        schemes["systematic_sorted"](Rng(0), w, order=vector([0.0, math.nan]))
    with pytest.raises(ValueError, match="cannot make 3 children of 2"):
        schemes["killing"](Rng(0), w, n=3)
    with pytest.raises(ValueError, match="cannot make -1"):
        schemes["systematic"](Rng(0), w, n=-1)
    with pytest.raises(UnknownName, match=r"no resampling scheme is called 'best'; there are: killing, multinomial"):
        find_scheme("best")
    assert issubclass(UnknownName, MotesError)


@pytest.mark.parametrize("name", ALL)
def test_one_particle(name):
    assert draw(name, vector([-1e300])).tolist() == [0]


@pytest.mark.parametrize("name", ALL)
def test_sole_survivor(name):
    w = torch.full((1000,), -INF, dtype=torch.float64)
    w[-1] = -3.0
    assert (draw(name, w) == 999).all()


EXACT = [name for name in ALL if name != "multinomial"]


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 16_385, 100_003])
@pytest.mark.parametrize("name", EXACT)
def test_equal_weights_give_everybody_one_child(name, n):
    w = torch.full((n,), -math.log(n), dtype=torch.float64)
    assert torch.equal(draw(name, w).sort().values, torch.arange(n))


@pytest.mark.parametrize("name", ["systematic"])
def test_twenty_million_equal_weights(name):
    n = 20_000_000
    w = torch.full((n,), -math.log(n), dtype=torch.float64)
    assert torch.equal(draw(name, w), torch.arange(n))


@pytest.mark.slow
@pytest.mark.parametrize("route", ["compiled", "plain"])
@pytest.mark.parametrize("name", [n for n in EXACT if n != "systematic_sorted"])
def test_twenty_million_equal_weights_by_every_scheme(name, route, monkeypatch):
    if route == "plain":
        if name == "ssp":
            pytest.skip("without numba this scheme is a Python loop")
        monkeypatch.setattr(_fast, "PRESENT", False)
    n = 20_000_000
    w = torch.full((n,), 1e300, dtype=torch.float64)
    assert torch.equal(draw(name, w), torch.arange(n))


def test_float32_would_not_do():
    """The broken twin: sums in float32, as in shipping code, lose particles at a million."""
    n = 1_000_000
    heights = torch.from_numpy(torch.full((n,), 1 / n, dtype=torch.float32).numpy().cumsum())
    places = (torch.arange(n) + 0.5) / n
    children = torch.bincount(torch.searchsorted(heights, places.float(), right=True).clamp(max=n - 1), minlength=n)
    assert (children != 1).sum() > 1000


@pytest.mark.skipif(not _fast.PRESENT, reason="numba is not installed")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("spread", [0.0, 0.5, 4.0, 300.0])
@pytest.mark.parametrize("name", ALL)
def test_compiled_and_plain_route_give_the_same(name, spread, threads, monkeypatch):
    x = torch.arange(30_001, dtype=torch.float64)
    w = spread * (x * 12.9898).sin().mul(43758.5453).frac()
    w[100:300], w[-3:] = -INF, -INF
    monkeypatch.setattr(_fast, "PART", 4096)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        compiled = draw(name, w)
        monkeypatch.setattr(_fast, "PRESENT", False)
        assert torch.equal(compiled, draw(name, w))
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not _fast.PRESENT, reason="numba is not installed")
@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_compiled_and_plain_loops_give_the_same(data):
    """The pieces, on short vectors with every kind of weight and any number of children."""
    w = vector(data.draw(st.lists(VALUES, min_size=1, max_size=30)))
    if w.max() == -INF:
        return
    n = data.draw(st.integers(1, 60))
    bits, u = bits_for(n), Rng(data.draw(st.integers(0, 1000)))
    offset = (u.uniform((n,)) * 2.0**bits).long()
    place = torch.where(u.at("some").uniform((n,)) < 0.8, u.at("place").uniform((n,)), -1.0)
    small, part = _fast.SMALL, _fast.PART
    try:
        found = []
        for _fast.SMALL, _fast.PART in ((10**9, 1), (0, 1)):
            end = ends(w, n)
            each = [lattice(end, o, n, bits) for o in (offset, offset[0])]
            found.append([end, *each, tally(end, place, n, bits)])
    finally:
        _fast.SMALL, _fast.PART = small, part
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    end = found[0][0]
    assert int(end[-1]) == n << bits and (end.diff() >= 0).all()
    assert (end.diff(prepend=end.new_zeros(1))[w == -INF] == 0).all()


def test_without_numba(monkeypatch):
    """Short and long vectors work on tensors alone."""
    monkeypatch.setattr(_fast, "PRESENT", False)
    monkeypatch.setattr(_fast, "_loops", lambda: pytest.fail("the compiled loops were asked for"))
    for name in ALL:
        assert len(draw(name, torch.linspace(-3, 0, 20_000, dtype=torch.float64))) == 20_000


def test_short_vectors_wait_for_no_compiler(monkeypatch):
    monkeypatch.setattr(_fast, "_loops", lambda: pytest.fail("the compiled loops were asked for"))
    for name in ALL:
        draw(name, torch.linspace(-3, 0, _fast.SMALL, dtype=torch.float64))


def test_sorted_resampling_keeps_shares_in_order():
    """Any stretch of the sorted particles gets its weight's worth of children, within 1; unsorted ones do not."""
    n = 500
    order = torch.arange(n, dtype=torch.float64).mul(7.7).sin()
    w = torch.arange(n, dtype=torch.float64).mul(3.1).cos() * 2

    def worst(name, **more):
        children = torch.bincount(schemes[name](Rng(1), w, **more), minlength=n).double()
        surplus = (children - n * torch.softmax(w, 0))[order.argsort()].cumsum(0)
        return float(surplus.abs().max())

    assert worst("systematic_sorted", order=order) < 1 + NEAR
    assert worst("systematic") > 2


@pytest.mark.parametrize("name", ALL)
def test_every_scheme_says_where_it_comes_from(name):
    assert schemes[name].references and schemes[name].name == name
