"""The shape of a population: the covariance by which a kernel scales its proposals."""

from __future__ import annotations

import torch
from torch import Tensor


def fit_scale(position: Tensor, weight: Tensor, kind: str, old: Tensor) -> Tensor:
    """A factor S of the population's covariance, so that S times white noise looks like the population.

    The correlations are shrunk towards zero by (d + 1) / (n + d + 1), n the effective sample size of the weights.

    Args:
        position: (N, d).
        weight: (N,), sum 1.
        kind: "dense" (a Cholesky factor), "diagonal" (standard deviations), or "auto": dense if d is at most 256 and
            the effective sample size at least 2 d.
        old: what is returned where the population has collapsed to fewer than two different points.

    Returns:
        (d, d) lower triangular, or (d,).
    """
    n, d = 1.0 / float(weight.square().sum()), position.shape[1]
    if n < 2:
        return old
    w = weight.to(position)
    centred = position - w @ position
    unbias = n / (n - 1)
    variance = unbias * (w @ centred.square())
    # copies of one point differ by rounding alone, which is no scale to propose on
    if not bool((variance > 1e-24 * position.square().amax(0)).all()):
        return old
    if kind == "diagonal" or (kind == "auto" and (d > 256 or n < 2 * d)):
        return variance.sqrt()
    shrink = (d + 1) / (n + d + 1)
    covariance = ((1 - shrink) * unbias) * (centred.T @ (w[:, None] * centred))
    covariance.diagonal().copy_(variance)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return variance.sqrt() if failed else factor


def stretch(white: Tensor, scale: Tensor) -> Tensor:
    """S u for every row u of `white` (N, d)."""
    return white * scale if scale.ndim == 1 else white @ scale.T


def pull(gradient: Tensor, scale: Tensor) -> Tensor:
    """S^T g for every row g of `gradient` (N, d): the gradient in the coordinates in which the population is white."""
    return gradient * scale if scale.ndim == 1 else gradient @ scale
