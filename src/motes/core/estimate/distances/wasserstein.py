"""The sliced Wasserstein distance between weighted samples, with control variates over the directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.control_variates import FOLDS, controlled
from motes.core.estimate.estimate import Estimate
from motes.core.weights import check_log_weight, normalise
from motes.errors import MotesError, ShapeError
from motes.rng import Rng

BLOCK = 1 << 22
"""Projected points that are held at once."""


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    log_weight_x: Tensor | None = None,
    log_weight_y: Tensor | None = None,
    directions: int = 256,
    control: bool = True,
    seed: int = 0,
) -> Estimate[Tensor]:
    """The squared sliced 2-Wasserstein distance between two weighted samples, averaged over random directions.

    SW^2 = E over unit vectors u of W2^2(u'x, u'y), where in one dimension W2^2 is the squared difference of the two
    quantile functions, integrated: exact for weighted points, by sorting. For isotropic Gaussians it is
    |m1 - m2|^2 / d + (s1 - s2)^2.

    The control variates are what W2^2 would be made of if the projections were Gaussian: u'Au for A the outer product
    of the difference of the means and the two covariances, each with mean tr A / d. Their coefficients are fitted to
    other directions (cross-fitting), so they add no bias. Where y is a positive multiple of x plus a constant nothing
    is left to chance.

    The standard error is that of the average over directions. It says nothing of the points: two finite samples of one
    law are some way apart, in d dimensions by about 2 tr(Cov) / (d N) times a slowly growing factor.

    References:
        Bonneel, Rabin, Peyre & Pfister (2015), Sliced and Radon Wasserstein barycenters of measures, Journal of
        Mathematical Imaging and Vision 51.
        Nguyen & Ho (2024), Sliced Wasserstein estimation with control variates, ICLR (the lower and the upper bound are
        spanned by the three used here).

    Args:
        x: (N, d) points.
        y: (M, d) points.
        log_weight_x: (N,) nats; None is equal weights.
        log_weight_y: (M,) nats.
        directions: how many, at least 2; with fewer than 16 the error bar is too small (intervals of +-1.96 covered 71
            % of 200 seeds with 2, 79 % with 4, 85 % with 8, 92 % with 16 and 95 % with 64, under control variates).
        control: with control variates.
        seed: of the directions.

    Raises:
        ShapeError: the points have different dimensions or are not finite.

    >>> import torch
    >>> from motes.core import sliced_wasserstein
    >>> x = torch.arange(12.0).view(6, 2)
    >>> bool(abs(float(sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]))) - 25 / 2) < 1e-9)
    True
    """
    if directions < 2:
        raise MotesError(f"an average with an error bar needs 2 or more directions, not {directions}")
    x, y = x.detach().to(torch.float64), y.detach().to(torch.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ShapeError(f"points must be (N, d) and (M, d), not {tuple(x.shape)} and {tuple(y.shape)}")
    x, w = _weighted(x, log_weight_x)
    y, v = _weighted(y, log_weight_y)
    d = x.shape[1]
    u = Rng(seed).at("directions").normal((directions, d))
    u = u / u.norm(dim=1, keepdim=True)
    size = max(1, BLOCK // (len(x) + len(y)))
    value = torch.cat([_squared(part @ x.T, part @ y.T, w, v) for part in u.split(size)])
    if control and d > 1:
        value = controlled(value[:, None], _controls(u, x, y, w, v), torch.full_like(value, 1 / directions), _fold(u))
        value = value[:, 0]
    return Estimate(value.mean(), value.std() / math.sqrt(directions), method="spread of directions")


def _weighted(x: Tensor, log_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The points with positive weight, and their normalised weights."""
    if log_weight is None:
        weight = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    else:
        check_log_weight(log_weight, None, "sliced_wasserstein")
        if len(log_weight) != len(x):
            raise ShapeError(f"there are {len(log_weight)} log-weights for {len(x)} points")
        weight = normalise(log_weight)
    x, weight = x[weight > 0], weight[weight > 0]
    if not torch.isfinite(x).all():
        raise ShapeError("a point with positive weight is not finite")
    return x, weight


def _squared(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """(L,) squared W2 distances of the rows of x (L, N) and y (L, M) with weights w and v."""
    x, i = x.sort(1)
    y, j = y.sort(1)
    if x.shape == y.shape and float(w.min()) == float(w.max()) and float(v.min()) == float(v.max()):
        return (x - y).square().mean(1)
    up, vp = w[i].cumsum(1), v[j].cumsum(1)
    up[:, -1] = vp[:, -1] = 1.0
    edge = torch.cat([up, vp], 1).sort(1).values
    start = torch.cat([torch.zeros_like(edge[:, :1]), edge[:, :-1]], 1)
    middle = (start + edge) / 2  # in each piece both quantile functions are constant
    a = torch.searchsorted(up, middle).clamp_max(x.shape[1] - 1)
    b = torch.searchsorted(vp, middle).clamp_max(y.shape[1] - 1)
    return ((edge - start) * (x.gather(1, a) - y.gather(1, b)).square()).sum(1)


def _controls(u: Tensor, x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """(L, 3) quadratic forms in the directions with mean zero."""
    m, k = w @ x, v @ y
    s, t = (x - m).T @ (w[:, None] * (x - m)), (y - k).T @ (v[:, None] * (y - k))
    forms = [torch.outer(m - k, m - k), s, t]
    d = u.shape[1]
    return torch.stack([((u @ a) * u).sum(1) - a.trace() / d for a in forms], 1)


def _fold(u: Tensor) -> Tensor:
    return torch.arange(len(u)) % FOLDS
