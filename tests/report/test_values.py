"""Particles as named numbers, texts and images."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.report import values


def test_names_of_nested_parameters():
    x = torch.zeros(5, 2)
    view = {"beta": x, "tau": x[:, 0], "deep": {"a": (x[:, 0], x.long())}}
    names = [c.name for c in values.columns(view)]
    assert names == ["beta[0]", "beta[1]", "tau", "deep['a'][0]", "deep['a'][1][0]", "deep['a'][1][1]"]
    assert [c.whole for c in values.columns(view)] == [False] * 4 + [True] * 2
    assert [c.name for c in values.columns(torch.zeros(5))] == ["x"]
    assert [c.name for c in values.columns(torch.zeros(5, 2, 2))] == ["x[0, 0]", "x[0, 1]", "x[1, 0]", "x[1, 1]"]
    assert len(values.columns({"a": torch.zeros(5, 1000)}, 7)) == 7
    assert values.size(view) == 6


def test_kinds():
    assert values.kind(["a", "b"]) == "texts"
    assert values.kind(torch.zeros(3, 1, 8, 8)) == "images"
    assert values.kind(torch.zeros(3, 5, 8, 8)) == "numbers"
    assert values.kind({"x": torch.zeros(3)}) == "numbers"
    assert values.kind(torch.zeros(3, 0)) == "nothing"
    assert values.kind([]) == "nothing"


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=1, max_size=12))
def test_weighted_quantiles_equal_those_of_repeated_values(pairs):
    v = np.array([p[0] for p in pairs])
    w = np.array([p[1] for p in pairs], dtype=float)
    q = np.array([0.025, 0.3, 0.5, 0.975])
    ours = values.quantile(v, w, q)
    assert (np.diff(ours) >= 0).all()
    repeated = np.sort(np.repeat(v, w.astype(int)))
    # the quantile lies within one value of the unweighted one of the repeated sample
    place = np.clip(q * len(repeated), 0, len(repeated) - 1)
    sorted_v = np.unique(v)
    for ours_k, p in zip(ours, place, strict=True):
        at = np.searchsorted(sorted_v, repeated[int(p)])
        assert sorted_v[max(at - 1, 0)] - 1e-12 <= ours_k <= sorted_v[min(at + 1, len(sorted_v) - 1)] + 1e-12


def test_weighted_quantile_of_a_gaussian():
    # importance weights turn N(0, 2^2) into N(0, 1); 2e5 equidistant quantile points leave an error below 1e-3
    p = (np.arange(200_000) + 0.5) / 200_000
    x = 2 * torch.special.ndtri(torch.from_numpy(p)).numpy()
    w = np.exp(-0.5 * x**2 + 0.125 * x**2)
    assert np.abs(values.quantile(x, w / w.sum(), np.array([0.025, 0.5, 0.975])) - [-1.95996, 0, 1.95996]).max() < 1e-3
    assert abs(values.quantile(x, np.ones_like(w), np.array([0.975]))[0] - 1.95996) > 1  # unweighted it is wrong


def test_equal_texts_are_merged_and_weightless_ones_left_out():
    found = values.distinct(["a", "b", "a", "c"], np.array([0.2, 0.5, 0.3, 0.0]))
    assert [(d.what, d.weight, d.count) for d in found] == [("a", 0.5, 2), ("b", 0.5, 1)]


def test_equal_images_are_merged():
    x = torch.zeros(4, 1, 2, 2)
    x[1] = 1
    found = values.distinct(x, np.full(4, 0.25))
    assert [(d.count, d.weight) for d in found] == [(3, 0.75), (1, 0.25)]
    assert found[0].what.shape == (2, 2) and found[1].what.min() == 255


def test_pixels_from_both_ranges():
    unit = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(1, 1, 2, 2)
    assert values.to_pixels(unit).ravel().tolist() == [0, 128, 255, 255]
    signed = torch.tensor([-1.0, 0.0, 1.0, -3.0]).reshape(1, 1, 2, 2)
    assert values.to_pixels(signed).ravel().tolist() == [0, 128, 255, 0]
    assert values.to_pixels(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)
    assert values.to_pixels(torch.full((1, 1, 2, 2), torch.nan)).max() == 0
    assert values.distinct({"x": torch.zeros(3)}, np.full(3, 1 / 3)) == []
