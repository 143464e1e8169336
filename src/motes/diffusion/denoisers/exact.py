"""Denoisers in closed form, for data laws whose posterior mean is known: what samplers are tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.files.settings import short
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.process import Process
from motes.errors import MotesError, ShapeError


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
        raise MotesError("the weights must be positive and the covariances positive definite")

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


def empirical(
    process: Process,
    examples: Tensor,
    *,
    weights: Tensor | None = None,
    bandwidth: float = 0.0,
    chunk: int = 4096,
) -> Denoiser:
    """The exact denoiser of a data set's own law, each example with the same probability.

    The law of x_t is a mixture of normals with one component an example, so the posterior mean of the data is the mean
    of the examples weighted by their likelihoods N(x; alpha example, sigma^2), and the log-density is known too. A call
    passes over all examples once, `chunk` of them at a time, in float64.

    Args:
        process: the noising process.
        examples: (M, *shape); computed with on the device where they lie.
        weights: (M,) positive, need not sum to one; None is equal.
        bandwidth: the standard deviation of normal noise that blurs each example, in units of the data (a kernel
            density estimate); 0 is the examples themselves.
        chunk: examples compared at a time: memory is particles times chunk, 8 bytes each.

    Raises:
        ShapeError: examples and weights do not fit, or, on a call, images of another shape.
        ValueError: a weight that is not positive, examples that are not finite, a negative bandwidth, a chunk below 1.

    References:
        Vincent (2011), A Connection Between Score Matching and Denoising Autoencoders, Neural Computation 23.
        Karras, Aittala, Aila & Laine (2022), Elucidating the Design Space, NeurIPS, appendix B.3, Eq. (57).

    Example:
        >>> import torch
        >>> from motes.diffusion import VariancePreserving
        >>> from motes.diffusion.denoisers.exact import empirical
        >>> denoiser = empirical(VariancePreserving(), torch.tensor([[-1.0], [1.0]]))
        >>> float(denoiser.data(torch.zeros(1, 1), 0.5))
        0.0
    """
    flat = examples.detach().to(torch.float64).reshape(len(examples), -1) if examples.ndim > 1 else examples
    if examples.ndim < 2 or len(examples) == 0:
        raise ShapeError(f"examples must have shape (M, *shape) with M >= 1, not {tuple(examples.shape)}")
    if weights is not None and weights.shape != (len(examples),):
        raise ShapeError(f"weights must have shape ({len(examples)},), not {tuple(weights.shape)}")
    if not bool(torch.isfinite(flat).all()) or (weights is not None and not bool((weights > 0).all())):
        raise MotesError("examples must be finite and weights positive")
    if not bandwidth >= 0 or chunk < 1:
        raise MotesError(f"need bandwidth >= 0 and chunk >= 1, not {bandwidth}, {chunk}")
    equal = torch.ones(len(flat), dtype=torch.float64)
    log_weight = torch.log_softmax(torch.log((equal if weights is None else weights).to(flat)), 0)
    square, shape, d = flat.square().sum(1), examples.shape[1:], flat.shape[1]

    def compare(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The flat x, log sum_m P(m) exp(-|x - alpha m|^2 / (2 spread)) (N,), the examples' mean, alpha, spread."""
        if x.shape[1:] != shape:
            raise ShapeError(f"the examples have shape {tuple(shape)}, the images {tuple(x.shape[1:])}")
        t, z = t.to(flat)[:, None], x.to(flat).flatten(1)
        alpha = process.alpha(t)
        spread = process.sigma(t) ** 2 + (alpha * bandwidth) ** 2
        if not bool((spread > 0).all()):
            raise MotesError("a data set without blur has no density where sigma = 0: end the grid above t_min = 0")
        best = z.new_full((len(z), 1), -math.inf)
        total, mean = torch.zeros_like(best), torch.zeros_like(z)
        for i in range(0, len(flat), chunk):  # the sums are kept relative to the largest term so far
            part = flat[i : i + chunk]
            log_p = log_weight[i : i + chunk] + alpha / spread * (z @ part.T - 0.5 * alpha * square[i : i + chunk])
            larger = torch.maximum(best, log_p.detach().amax(1, keepdim=True))
            p, shrink = torch.exp(log_p - larger), torch.exp(best - larger)
            best, total, mean = larger, shrink * total + p.sum(1, keepdim=True), shrink * mean + p @ part
        log_sum = (best + torch.log(total) - 0.5 * z.square().sum(1, keepdim=True) / spread)[:, 0]
        return z, log_sum, mean / total, alpha, spread

    def posterior_mean(x: Tensor, t: Tensor) -> Tensor:
        """sum_m P(m | x) E[x_0 | x, m]."""
        z, _, mean, alpha, spread = compare(x, t)
        if bandwidth:
            mean = mean + alpha * bandwidth**2 / spread * (z - alpha * mean)
        return mean.reshape(x.shape).to(x)

    def log_density(x: Tensor, t: Tensor) -> Tensor:
        """log sum_m P(m) N(x; alpha m, spread)."""
        _, log_sum, _, _, spread = compare(x, t)
        return log_sum - 0.5 * d * torch.log(2 * math.pi * spread[:, 0])

    name = f"{len(flat)} examples {short([bandwidth, tuple(shape), flat, log_weight])}"
    return Denoiser(posterior_mean, process, predicts="data", name=name, log_density=log_density)
