"""The shape of a population: the covariance by which a kernel scales its proposals.

The population is cut into two halves, and the covariance of each half scales the moves of the other. A scale that
comes from the very particles that it moves is correlated with them: with the full covariance of 256 particles in 12
dimensions that alone biases a log evidence by -0.5. Siblings sit side by side after resampling, so the halves are cut
in the middle and share at most one family.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fit_scale(position: Tensor, weight: Tensor, kind: str, old: Tensor) -> Tensor:
    """Two factors S of the population's covariance, for the first half of the particles and for the second.

    Each is made from the other half, so that S times white noise looks like that half. In the coordinates that `old`
    makes white, correlations are shrunk towards zero by (d + 1) / (m + d + 1), m the effective sample size of the half:
    so a population whose coordinates are nearly collinear is learnt in a few fits, and never from too few particles at
    once.

    Args:
        position: (N, d).
        weight: (N,), sum 1.
        kind: "dense" (a Cholesky factor), "diagonal" (standard deviations), or "auto": dense if d is at most 256 and
            both effective sample sizes are at least d / 2.
        old: the factors so far; also what is returned where a half has collapsed to fewer than two different points.

    Returns:
        (2, d, d) lower triangular, or (2, d).
    """
    half, d = (len(position) + 1) // 2, position.shape[1]
    halves = [(position[half:], weight[half:]), (position[:half], weight[:half])]
    sizes = [_effective(w) for _, w in halves]
    if min(sizes) < 2:
        return old
    dense = kind == "dense" or (kind == "auto" and d <= 256 and 2 * min(sizes) >= d)
    factors = []
    for (x, w), m, before in zip(halves, sizes, old, strict=True):
        w = (w / w.sum()).to(x)
        centred = x - w @ x
        unbias = m / (m - 1)
        variance = unbias * (w @ centred.square())
        # copies of one point differ by rounding alone, which is no scale to propose on
        if not bool((variance > 1e-24 * x.square().amax(0)).all()):
            return old
        factor = _cholesky(centred, w, unbias, (d + 1) / (m + d + 1), before.to(x)) if dense else None
        factors.append(variance.sqrt() if factor is None else factor)
    if len({f.ndim for f in factors}) > 1:  # one half had a covariance without a factor
        factors = [f if f.ndim == 2 else f.diag() for f in factors]
    return torch.stack(factors)


def fit_mean(position: Tensor, weight: Tensor, old: Tensor) -> Tensor:
    """(2, d) means of the population, each from the other half as in `fit_scale`; `old` where a half has no weight."""
    half = (len(position) + 1) // 2
    halves = [(position[half:], weight[half:]), (position[:half], weight[:half])]
    if min(_effective(w) for _, w in halves) == 0:
        return old
    return torch.stack([(w / w.sum()).to(x) @ x for x, w in halves])


def by_half(values: Tensor, n: int) -> Tensor:
    """(N, ...) the first of two `values` (2, ...) for the first half of N particles, the second for the others."""
    half = (n + 1) // 2
    return values.repeat_interleave(torch.tensor([half, n - half]), 0)


def whiten(rows: Tensor, scale: Tensor) -> Tensor:
    """S^-1 u for every row u of `rows` (N, d): the inverse of `stretch`."""
    if scale.ndim == 2:
        return rows / by_half(scale, len(rows))
    half = (len(rows) + 1) // 2
    parts = (rows[:half], scale[0]), (rows[half:], scale[1])
    return torch.cat([torch.linalg.solve_triangular(s, r.mT, upper=False).mT for r, s in parts])


def _effective(weight: Tensor) -> float:
    total = float(weight.sum())
    return total**2 / float(weight.square().sum()) if total > 0 else 0.0


def _cholesky(centred: Tensor, w: Tensor, unbias: float, shrink: float, before: Tensor) -> Tensor | None:
    """The factor of the covariance, shrunk in the coordinates that `before` makes white; None if rounding forbids."""
    if before.ndim == 2:
        centred = torch.linalg.solve_triangular(before, centred.mT, upper=False).mT
    covariance = unbias * (centred.T @ (w[:, None] * centred))
    variance = covariance.diagonal().clone()
    covariance *= 1 - shrink
    covariance.diagonal().copy_(variance)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        return None
    return before @ factor if before.ndim == 2 else factor


def scaled(white: Tensor, scale: Tensor) -> Tensor:
    """S u for every row u of `white` (N, d), each half with its own S."""
    return _apply(white, scale, scale.mT if scale.ndim == 3 else scale)


def pull(gradient: Tensor, scale: Tensor) -> Tensor:
    """S^T g for every row g of `gradient` (N, d): the gradient in the coordinates in which the population is white."""
    return _apply(gradient, scale, scale)


def _apply(rows: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
    n, d = rows.shape
    if n % 2 == 0:  # one call for both halves
        pair = rows.view(2, n // 2, d)
        return (pair * factor[:, None] if scale.ndim == 2 else torch.bmm(pair, factor)).view(n, d)
    half, out = (n + 1) // 2, torch.empty_like(rows)
    for part, f in ((slice(half), factor[0]), (slice(half, None), factor[1])):
        (torch.mul if scale.ndim == 2 else torch.mm)(rows[part], f, out=out[part])
    return out
