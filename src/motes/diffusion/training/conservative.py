"""How far a vector field is from a gradient: the asymmetry of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.rng import Rng
from motes.rng.seed import seeded


def asymmetry(field: Callable[[Tensor], Tensor], x: Tensor, *, seed: int | Rng) -> Tensor:
    """An estimate of half the squared norm of J - J', for each row of x: zero if and only if J is symmetric.

    With random signs v, E |(J - J') v|^2 = |J - J'|^2 (Frobenius), and half of that is E[|J'v|^2 - v'JJv] as well; the
    square is taken here because it is never negative and exactly zero for a symmetric Jacobian. J'v is a gradient, and
    Jv the gradient of what is linear in a second vector, so that any layer works that can be differentiated twice.

    Args:
        field: maps (N, ...) to the same shape, row by row.
        x: (N, ...).
        seed: a whole number or an Rng, of the signs.

    Returns:
        (N,), unbiased; it can be differentiated if gradients are on.

    References:
        Chao, Sun, Cheng & Lee (2023), On Investigating the Conservative Property of Score-Based Generative Models,
        ICML.
        Hutchinson (1989), A Stochastic Estimator of the Trace, Commun. Stat. 18.

    Example:
        >>> import motes
        >>> turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> asymmetry(lambda x: x @ turn, torch.zeros(2, 2), seed=motes.Rng(0))  # |J - J'|^2 / 2 = (4 + 4) / 2
        tensor([4., 4.])
    """
    rng = seeded(seed)
    keep = torch.is_grad_enabled()
    sign = 2.0 * (rng.at("signs").uniform(tuple(x.shape), dtype=x.dtype) < 0.5).to(x) - 1.0
    with torch.enable_grad():
        z = x if x.requires_grad else x.detach().requires_grad_()
        second = torch.zeros_like(x, requires_grad=True)
        out = field(z)
        (back,) = torch.autograd.grad(out, z, second, create_graph=True, materialize_grads=True)  # J' second, at 0
        (forth,) = torch.autograd.grad(back, second, sign, create_graph=keep, retain_graph=True, materialize_grads=True)
        (back,) = torch.autograd.grad(out, z, sign, create_graph=keep, materialize_grads=True)
    return 0.5 * (forth - back).square().flatten(1).sum(1)
