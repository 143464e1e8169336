"""Whether a model's score is the gradient of anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class NonConservativeness:
    """How far the Jacobian J of a score is from symmetric.

    Attributes:
        square: E|J - J'|_F^2 over the points, 0 for a gradient.
        jacobian: E|J|_F^2 over the points.
        share: square / (4 jacobian), the part of |J|_F^2 that is antisymmetric, in [0, 1].
    """

    square: Estimate[Tensor]
    jacobian: Estimate[Tensor]
    share: float


def non_conservativeness(
    denoiser: Denoiser, x: Tensor, t: float, *, seed: int | Rng, probes: int = 1
) -> NonConservativeness:
    """The antisymmetric part of a score's Jacobian, by random probes.

    The score of a density is its logarithm's gradient, so its Jacobian is symmetric; a network's need not be, and then
    no energy has this score and likelihoods depend on the path that they are integrated along. With v normal,
    E|(J - J') v|^2 = |J - J'|_F^2: unbiased, and zero without any variance for a gradient. J v and J' v come from
    automatic differentiation, twice through the model.

    Args:
        denoiser: the model; it must keep second derivatives.
        x: (n, *shape) points at time t, such as noised data.
        t: the time.
        seed: a whole number or an Rng, of the probes.
        probes: probes a point.

    References:
        Chao, Sun, Cheng & Lee (2023), On Investigating the Conservative Property of Score-Based Generative Models,
        ICML, section 3. Hutchinson (1990), Communications in Statistics 19 (the probes).

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import Denoiser, VariancePreserving
        >>> turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> spin = Denoiser(lambda x, t: x @ turn, VariancePreserving(), predicts="score")
        >>> round(non_conservativeness(spin, torch.zeros(4, 2), 0.5, seed=Rng(0)).share, 5)
        1.0
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    square, total = [], []
    for i in range(probes):
        v = rng.at("probe", inner=i).normal(tuple(x.shape), dtype=x.dtype).to(x.device)
        left, right = products(denoiser, x, t, v)
        square.append((right - left).double().flatten(1).square().sum(1))
        total.append(0.5 * (right.double().flatten(1).square().sum(1) + left.double().flatten(1).square().sum(1)))
    asymmetry, size = torch.stack(square).mean(0), torch.stack(total).mean(0)
    share = float(asymmetry.sum() / (4 * size.sum()).clamp(min=1e-300))
    return NonConservativeness(independent_mean(asymmetry), independent_mean(size), share)


def products(denoiser: Denoiser, x: Tensor, t: float, v: Tensor) -> tuple[Tensor, Tensor]:
    """(J' v, J v) of the score's Jacobian at x (n, *shape)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        score = denoiser.score(x, t)
        dual = torch.zeros_like(score, requires_grad=True)
        # J' dual is linear in dual, so its derivative along dual is J
        forward = torch.autograd.grad(score, x, dual, create_graph=True)[0]
        right = torch.autograd.grad(forward, dual, v, retain_graph=True)[0]
        left = torch.autograd.grad(score, x, v)[0]
    return left, right
