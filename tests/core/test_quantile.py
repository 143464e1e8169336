"""Quantiles of weighted numbers."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.core.estimate.quantile import quantile


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=1, max_size=12))
def test_weighted_quantiles_equal_those_of_repeated_values(pairs):
    v = np.array([p[0] for p in pairs])
    w = np.array([p[1] for p in pairs], dtype=float)
    q = np.array([0.025, 0.3, 0.5, 0.975])
    ours = quantile(v, w, q)
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
    assert np.abs(quantile(x, w / w.sum(), np.array([0.025, 0.5, 0.975])) - [-1.95996, 0, 1.95996]).max() < 1e-3
    assert abs(quantile(x, np.ones_like(w), np.array([0.975]))[0] - 1.95996) > 1  # unweighted it is wrong
