"""Iterative alpha-(de)blending: one law carried to another by small blends of expected partners."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.diffusion.arguments import check_networks
from motes.errors import MotesError, ShapeError


def alpha_blending(
    difference: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int | Tensor, *, order: int = 1
) -> Tensor:
    """Samples of one law carried to another along the expected difference of blended partners.

    Draw x_0 and x_1 on their own and blend, x_a = (1 - a) x_0 + a x_1. With what a regression of x_1 - x_0 on x_a
    knows, the steps x <- x + (a' - a) E[x_1 - x_0 | x_a = x] carry the law of x_0 to that of x_1: exactly as the steps
    shrink. First order is Euler's method, second order evaluates once more in the middle of the step. The map is
    deterministic, so its results have no weights; for x_0 normal it is the flow of the process with alpha = a,
    sigma = 1 - a.

    Args:
        difference: (x (n, *shape), blend (n,)) to the expected x_1 - x_0.
        x: (n, *shape) samples of the first law.
        steps: how many equal steps, or the rising blends (K + 1,), from 0 to 1.
        order: 1 or 2.

    Raises:
        ShapeError: the model returned another shape.
        ValueError: blends that do not rise, or another order.

    References:
        Heitz, Belcour & Chambon (2023), Iterative alpha-(de)Blending: a Minimalist Deterministic Diffusion Model,
        SIGGRAPH, Algorithm 4.

    Example:
        >>> import torch
        >>> shift = lambda x, blend: torch.ones_like(x)  # the second law is the first, moved by 1
        >>> alpha_blending(shift, torch.zeros(1, 2), 4)
        tensor([[1., 1.]])
    """
    check_networks(difference=difference)
    blends = torch.linspace(0, 1, steps + 1, dtype=torch.float64) if isinstance(steps, int) else steps.double()
    if blends.ndim != 1 or len(blends) < 2 or not bool((blends.diff() > 0).all()):
        raise MotesError(f"blends must rise, at least 2 of them, not {blends.tolist()}")
    if order not in (1, 2):
        raise MotesError(f"order must be 1 or 2, not {order}")

    def slope(x: Tensor, blend: float) -> Tensor:
        out = difference(x, torch.full((len(x),), blend, dtype=x.dtype, device=x.device))
        if out.shape != x.shape:
            raise ShapeError(f"the model returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}")
        return out

    with torch.no_grad():
        for a, b in zip(blends[:-1].tolist(), blends[1:].tolist(), strict=True):
            move = slope(x, a)
            if order == 2:
                move = slope(x + 0.5 * (b - a) * move, 0.5 * (a + b))
            x = x + (b - a) * move
    return x
