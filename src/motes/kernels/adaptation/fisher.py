"""A diagonal scale from draws and their gradients, for populations too small to tell a variance."""

from __future__ import annotations

import torch
from torch import Tensor


def fit_fisher(position: Tensor, gradient: Tensor, weight: Tensor, old: Tensor) -> Tensor:
    """(2, d) standard deviations (var x / var grad)^(1/4), for each half of the particles from the other half.

    It is the diagonal that minimises the Fisher divergence between the law in the scaled coordinates and a standard
    normal one. For independent Gaussians var grad = 1 / var x, whatever few draws there are: two are enough.

    References:
        Seyboldt, Carlson & Carpenter (2026), Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence,
        arXiv:2603.18845.

    Args:
        position: (N, d).
        gradient: (N, d) of the log-density there.
        weight: (N,), sum 1.
        old: what is returned where a half has fewer than two different points.
    """
    half, factors = (len(position) + 1) // 2, []
    for part in (slice(half, None), slice(half)):
        w, x, g = weight[part], position[part], gradient[part]
        if not float(w.sum()) > 0:
            return old
        w = (w / w.sum()).to(x)
        spread, slope = (w @ (f - w @ f).square() for f in (x, g))
        if not bool((spread > 1e-24 * x.square().amax(0)).all() and (slope > 0).all() and torch.isfinite(slope).all()):
            return old
        factors.append((spread / slope) ** 0.25)
    return torch.stack(factors)
