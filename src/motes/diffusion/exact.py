"""Denoisers in closed form, for data laws whose posterior mean is known: what samplers are tested against."""

from __future__ import annotations

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
    """
    weights, means, covariances = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covariances))
    m, d = means.shape if means.ndim == 2 else (0, 0)
    if m == 0 or weights.shape != (m,) or covariances.shape != (m, d, d):
        raise ShapeError(
            f"need weights (M,), means (M, d) and covariances (M, d, d), not {tuple(weights.shape)}, "
            f"{tuple(means.shape)}, {tuple(covariances.shape)}"
        )
    log_weight, eye = torch.log(weights / weights.sum()), torch.eye(d, dtype=torch.float64)

    def posterior_mean(x: Tensor, t: Tensor) -> Tensor:
        """sum_m P(m | x) E[x_0 | x, m]."""
        if not bool((t == t[0]).all()):
            raise ShapeError("an exact denoiser takes one time for all particles of a call")
        alpha, sigma = process.alpha(t[0].to(torch.float64)), process.sigma(t[0].to(torch.float64))
        spread = alpha**2 * covariances + sigma**2 * eye  # (M, d, d)
        residual = x.to(torch.float64)[:, None] - alpha * means  # (N, M, d)
        solved = torch.einsum("mde,nme->nmd", torch.linalg.inv(spread), residual)
        log_p = log_weight - 0.5 * (residual * solved).sum(-1) - 0.5 * torch.logdet(spread)
        each = means + alpha * torch.einsum("mde,nme->nmd", covariances, solved)
        return torch.einsum("nm,nmd->nd", torch.softmax(log_p, dim=1), each).to(x)

    return Denoiser(posterior_mean, process, predicts="data", name=f"mixture of {m} normals in {d} dimensions")
