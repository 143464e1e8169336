"""Kernel Stein discrepancy of weighted points from a density known by its score, and thinning that minimises it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from motes.core.run import Run
from motes.core.weights import normalise
from motes.errors import MotesError, ShapeError, UnknownName, check_at_least, name_particles
from motes.laws.law import Law

Preconditioner = Literal["median", "scaled-median", "covariance"]
PAIRS = 1000
"""Points from which the median distance is taken, evenly spread over all of them."""
BLOCK = 1 << 22
"""Entries of the kernel that are held at once."""


def kernel_stein_discrepancy(
    x: Tensor, score: Tensor, *, log_weight: Tensor | None = None, preconditioner: Preconditioner = "median"
) -> float:
    """The kernel Stein discrepancy of weighted points from the density with this score; 0 only at the density itself.

    It is the root of sum_ij W_i W_j k_p(x_i, x_j), the diagonal included, with the Stein kernel of the inverse
    multiquadric (1 + |x - y|_P^2)^(-1/2), |r|_P^2 = r' P r,

        k_p(x, y) = -3 r'P^2 r / q^(5/2) + (tr P + r' P (s(x) - s(y))) / q^(3/2) + s(x)'s(y) / q^(1/2),

    q = 1 + |r|_P^2, r = x - y. This kernel sees points that escape to infinity; like every score it does not see how
    much mass is in which of several modes that lie far apart. N independent draws of the density itself give a square
    of E[tr P + |s|^2] / N on average. N^2 operations, in blocks.

    References:
        Gorham & Mackey (2017), Measuring sample quality with kernels, ICML, theorem 8.
        Riabiz, Chen, Cockayne, Swietach, Niederer, Mackey & Oates (2022), Optimal thinning of MCMC output, JRSS B
        84(4), eq. 5 and section 2.3.

    Args:
        x: (N, d) points.
        score: (N, d) gradients of the log-density there.
        log_weight: (N,) nats; None is equal weights.
        preconditioner: "median", P = I / m^2 with m the median distance between points; "scaled-median", P = I log(N) /
            m^2 (the logarithm at least 1); "covariance", the inverse of the points' covariance.
    """
    x, score, weight = _checked(x, score, log_weight)
    precision = _precision(x, preconditioner, len(x))
    size, total = max(1, BLOCK // len(x)), 0.0
    for a in range(0, len(x), size):
        kernel = _stein(x[a : a + size], score[a : a + size], x, score, precision)
        total += float(weight[a : a + size] @ (kernel @ weight))
    return math.sqrt(max(total, 0.0))


def stein_thinning(x: Tensor, score: Tensor, m: int, *, preconditioner: Preconditioner = "scaled-median") -> Tensor:
    """(m,) indices, in order and perhaps repeated, of points that represent the density, whatever the draws came from.

    Each next point is the one that lowers the kernel Stein discrepancy of those chosen so far the most,

        argmin_i  k_p(x_i, x_i) / 2 + sum_j k_p(x_i, x_chosen(j)),

    so that a chain's burn-in is left out and its bias made up for, as far as the points allow. N m operations, and
    memory for N numbers.

    References:
        Riabiz, Chen, Cockayne, Swietach, Niederer, Mackey & Oates (2022), Optimal thinning of MCMC output, JRSS B
        84(4), algorithm 1.

    Args:
        x: (N, d) points; weights are of no use here.
        score: (N, d) gradients of the log-density there.
        m: how many to choose.
        preconditioner: as for `kernel_stein_discrepancy`, the logarithm being that of `m`.
    """
    x, score, _ = _checked(x, score, None)
    check_at_least(1, m=m)
    precision = _precision(x, preconditioner, m)
    gain = (precision.trace() + score.square().sum(1)) / 2
    chosen = []
    for _ in range(m):
        k = int(gain.argmin())
        chosen.append(k)
        gain = gain + _stein(x, score, x[k : k + 1], score[k : k + 1], precision)[:, 0]
    return torch.tensor(chosen)


def stein_thinned(run: Run, density: Law, m: int, *, preconditioner: Preconditioner = "scaled-median") -> Tensor:
    """(m,) rows of `run.flat` that represent the run's target best, by `stein_thinning` of draws with positive weight.

    Raises:
        MotesError: the run knows no score.
    """
    z, score, alive = _of(run, density)
    rows = alive.nonzero()[:, 0]
    return rows[stein_thinning(z[rows], score[rows], m, preconditioner=preconditioner)]


def stein_discrepancy(run: Run, density: Law, *, preconditioner: Preconditioner = "median") -> float:
    """The kernel Stein discrepancy of a run's weighted draws from its target, in unconstrained coordinates.

    Raises:
        MotesError: the run knows no score.
    """
    z, score, alive = _of(run, density)
    log_weight = run.log_weight[alive] if run.shown.weighted else None
    return kernel_stein_discrepancy(z[alive], score[alive], log_weight=log_weight, preconditioner=preconditioner)


def _of(run: Run, density: Law) -> tuple[Tensor, Tensor, Tensor]:
    if run.score is None:
        raise MotesError(
            "Stein's method needs the gradient of the target's log-density at the draws, and this run has none: use a "
            "kernel with gradients and let the run end; chains keep it with keep_score=True"
        )
    z = density.unconstrain(run.flat)
    alive = run.log_weight > -math.inf if run.shown.weighted else torch.ones(len(z), dtype=torch.bool)
    return z, run.score.reshape(len(z), -1), alive


def _checked(x: Tensor, score: Tensor, log_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if x.ndim != 2 or x.shape != score.shape or not len(x):
        raise ShapeError(f"points and scores must both be (N, d), not {tuple(x.shape)} and {tuple(score.shape)}")
    bad = (~(torch.isfinite(x) & torch.isfinite(score)).all(1)).nonzero()[:, 0].tolist()
    if bad:
        raise MotesError(f"point or score is not finite for {name_particles(bad)}: leave those without weight out")
    n = len(x)
    if log_weight is not None and log_weight.shape != (n,):
        raise ShapeError(f"there must be one log-weight a point, ({n},), not {tuple(log_weight.shape)}")
    weight = torch.full((n,), 1 / n, dtype=torch.float64) if log_weight is None else normalise(log_weight)
    x = x.to(torch.float64)
    return x - x.mean(0), score.to(torch.float64), weight  # only differences count, and these keep more digits


def _precision(x: Tensor, preconditioner: Preconditioner, m: int) -> Tensor:
    """(d, d) the matrix P."""
    d = x.shape[1]
    if preconditioner == "covariance":
        covariance = torch.cov(x.T).reshape(d, d)
        if len(x) <= d or float(torch.linalg.eigvalsh(covariance)[0]) <= 1e-12 * float(covariance.trace()):
            raise MotesError(f"{len(x)} points do not fill {d} dimensions, so their covariance has no inverse")
        return torch.linalg.inv(covariance)
    if preconditioner not in ("median", "scaled-median"):
        raise UnknownName("preconditioner", preconditioner, ("median", "scaled-median", "covariance"))
    some = x[torch.linspace(0, len(x) - 1, min(len(x), PAIRS)).round().long()]
    distance = torch.pdist(some)
    distance = distance[distance > 0]  # draws that a chain rejected, or that were resampled, repeat
    scale = float(distance.median()) if len(distance) else 1.0
    more = max(1.0, math.log(m)) if preconditioner == "scaled-median" else 1.0
    return torch.eye(d, dtype=torch.float64) * (more / scale**2)


def _stein(x: Tensor, sx: Tensor, y: Tensor, sy: Tensor, precision: Tensor) -> Tensor:
    """(n, m) the Stein kernel, by matrix products: nothing of size n m d is made."""
    px, py = x @ precision, y @ precision
    q = 1 + _squared(x, px, y, py)
    twice = _squared(px, px, py, py)
    # r' P (s(x) - s(y)) with r = x - y
    drift = (px * sx).sum(1)[:, None] + (py * sy).sum(1) - px @ sy.T - sx @ py.T
    root = q.rsqrt()
    return -3 * twice * root**5 + (precision.trace() + drift) * root**3 + (sx @ sy.T) * root


def _squared(x: Tensor, px: Tensor, y: Tensor, py: Tensor) -> Tensor:
    """(n, m) (x - y)'(px - py), not negative."""
    cross = x @ py.T
    return ((x * px).sum(1)[:, None] + (y * py).sum(1) - 2 * cross).clamp_min(0)
