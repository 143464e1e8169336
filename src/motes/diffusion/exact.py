"""Denoisers in closed form, for data laws whose posterior mean is known: what samplers are tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.errors import ShapeError
from motes.diffusion.denoiser import Denoiser
from motes.diffusion.process import Process


def gaussian(process: Process, mean: Tensor, covariance: Tensor) -> Denoiser:
    """The exact denoiser of normal data, mean (d,) and covariance (d, d), for x of shape (N, d)."""
    return mixture(process, torch.ones(1, dtype=torch.float64), mean[None], covariance[None])


def mixture(process: Process, weights: Tensor, means: Tensor, covariances: Tensor) -> Denoiser:
    """The exact denoiser of a mixture of normals, for x of shape (N, d).

    Args:
        process: the noising process.
        weights: (M,) positive, need not sum to one.
        means: (M, d).
        covariances: (M, d, d), positive definite.

    Raises:
        ShapeError: the shapes do not fit.
        ValueError: a weight or a covariance is not positive.
    """
    weights, means, covariances = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covariances))
    m, d = means.shape if means.ndim == 2 else (0, 0)
    if m == 0 or weights.shape != (m,) or covariances.shape != (m, d, d):
        raise ShapeError(
            f"need weights (M,), means (M, d) and covariances (M, d, d), not {tuple(weights.shape)}, "
            f"{tuple(means.shape)}, {tuple(covariances.shape)}"
        )
    log_weight = torch.log(weights / weights.sum())
    variances, axes = torch.linalg.eigh(covariances)  # (M, d), (M, d, d): then any time costs no inverse
    if not bool((weights > 0).all()) or not bool((variances > 0).all()):
        raise ValueError("the weights must be positive and the covariances positive definite")

    def components(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P(m) p(x | m) (N, M), residuals over their variances (N, M, d), both along the axes; alpha (N, 1, 1)."""
        t = t.to(means).reshape(-1, 1, 1)
        t = t[:1] if bool((t == t[:1]).all()) else t
        alpha, sigma = process.alpha(t), process.sigma(t)
        spread = alpha**2 * variances + sigma**2  # (1 or N, M, d)
        residual = torch.einsum("mde,nmd->nme", axes, x.to(means)[:, None] - alpha * means)
        solved = residual / spread
        log_p = log_weight - 0.5 * (residual * solved + torch.log(2 * math.pi * spread)).sum(-1)
        return log_p, solved, alpha

    def posterior_mean(x: Tensor, t: Tensor) -> Tensor:
        """sum_m P(m | x) E[x_0 | x, m]."""
        log_p, solved, alpha = components(x, t)
        each = means + alpha * torch.einsum("mde,nme->nmd", axes, variances * solved)
        return torch.einsum("nm,nmd->nd", torch.softmax(log_p, dim=1), each).to(x)

    def log_density(x: Tensor, t: Tensor) -> Tensor:
        """log sum_m P(m) p(x | m)."""
        return torch.logsumexp(components(x, t)[0], dim=1)

    name = f"mixture of {m} normals in {d} dimensions"
    return Denoiser(posterior_mean, process, predicts="data", name=name, log_density=log_density)
