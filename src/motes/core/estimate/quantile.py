"""Quantiles of weighted numbers."""

from __future__ import annotations

import numpy as np


def quantile(values: np.ndarray, weight: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Weighted quantiles: the inverse of the weighted distribution function, joined linearly between midpoints."""
    order = np.argsort(values, kind="stable")
    w = weight[order]
    keep = w > 0
    w, v = w[keep], values[order][keep]
    middle = np.cumsum(w) - w / 2
    return np.interp(q, middle / w.sum(), v)
