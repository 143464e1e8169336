"""A cheap stand-in for a function of a population's positions: a quadratic, and a Gaussian process for the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST = 1000
"""Points that a Gaussian process is conditioned on: its cost grows with their cube."""
WORTH = 0.9
"""The part of the squared error that is left, at most, where a Gaussian process is worth its time."""
LENGTHS = (0.5, 1.0, 2.0, 4.0)
NOISE = 1e-4

Emulator = dict[str, Tensor]
"""Tensors that `predict` understands; an empty dict knows nothing."""


def fit_emulator(position: Tensor, value: Tensor) -> Emulator:
    """What predicts `value` (N, m) at `position` (N, d).

    A ridge regression on all products of two whitened coordinates (their squares alone if N < 2 (d + 1) (d + 2) / 2, no
    products if N < 4 d + 2), and on its residuals a Gaussian process with squared exponential covariance, of the length
    whose leave-one-out error is smallest; none where that is hardly below the regression's own. "spread" (m,) is that
    error's root mean square.

    References:
        Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, sections 2.2, 2.7 and 5.4.2, MIT Press.
    """
    finite = torch.isfinite(value).all(1)
    x, y = position[finite].double()[-MOST:], value[finite].double()[-MOST:]
    n, d = x.shape
    if n < 2 * d + 3:
        return {}
    centre, scale = x.mean(0), x.std(0).clamp(min=1e-12)
    degree = 2 if n >= (d + 1) * (d + 2) else 1 if n >= 4 * d + 2 else 0
    w = (x - centre) / scale
    f, middle = _features(w, degree), y.mean(0)
    gram = f.T @ f
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    factor = torch.linalg.cholesky(gram + ridge)
    beta = torch.cholesky_solve(f.T @ (y - middle), factor)
    rest = y - middle - f @ beta
    leverage = (torch.linalg.solve_triangular(factor, f.T, upper=False).square().sum(0)).clamp(max=0.99)
    best, spread = (rest / (1 - leverage)[:, None]).square().mean(0), torch.zeros_like(rest)
    enough = 1e-4 + 1e-8 * y.var(0)  # nats^2; a smaller error would make no better proposals
    length, square = torch.ones((), dtype=x.dtype), torch.cdist(w, w).square()
    for part in LENGTHS:
        at = part * math.sqrt(d)
        k = torch.exp(-0.5 * square / at**2) + NOISE * torch.eye(n, dtype=x.dtype)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(k))
        alpha = inverse @ rest
        error = (alpha / inverse.diagonal()[:, None]).square().mean(0)
        if float((error.maximum(enough) / enough).sum()) < WORTH * float((best.maximum(enough) / enough).sum()):
            best, spread, length = error, alpha, torch.tensor(at, dtype=x.dtype)
    return {
        "centre": centre,
        "scale": scale,
        "middle": middle,
        "beta": beta,
        "points": w,
        "alpha": spread,
        "length": length,
        "spread": best.sqrt().clamp(min=1e-9),
        "low": y.amin(0),
        "high": y.amax(0),
    }


def predict(emulator: Emulator, position: Tensor) -> Tensor:
    """(N, m) float64 at `position` (N, d), never far outside of the values that were fitted to."""
    w = (position.double() - emulator["centre"]) / emulator["scale"]
    count, d = len(emulator["beta"]), w.shape[1]
    degree = 0 if count == d + 1 else 1 if count == 2 * d + 1 and d > 1 else 2
    value = emulator["middle"] + _features(w, degree) @ emulator["beta"]
    if bool(emulator["alpha"].any()):
        square = torch.cdist(w, emulator["points"]).square()
        value = value + torch.exp(-0.5 * square / emulator["length"] ** 2) @ emulator["alpha"]
    low, high, reach = emulator["low"], emulator["high"], 3 * emulator["spread"]
    return torch.minimum(torch.maximum(value.nan_to_num(), 2 * low - high - reach), high + reach)


def _features(w: Tensor, degree: int) -> Tensor:
    """(N, p) 1, the coordinates, and their squares (degree 1) or all products (degree 2)."""
    parts = [torch.ones_like(w[:, :1]), w]
    if degree == 1:
        parts.append(w.square())
    elif degree == 2:
        i, j = torch.triu_indices(w.shape[1], w.shape[1])
        parts.append(w[:, i] * w[:, j])
    return torch.cat(parts, 1)
