"""Cold diffusion: any degradation undone level by level, without noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.diffusion.arguments import check_networks
from motes.errors import ShapeError, check_at_least


def cold_diffusion(
    x: Tensor, degrade: Callable[[Tensor, int], Tensor], restore: Callable[[Tensor, int], Tensor], levels: int
) -> Tensor:
    """Images restored from a degradation by changing its level one at a time.

    At each level s a restorer guesses the image, R(x_s, s), and only the guess's change between two levels is used:

        x_{s-1} = x_s - D(R(x_s, s), s) + D(R(x_s, s), s - 1).

    For D(x_0, s) = x_0 + s e with a direction e that does not depend on the image this is exact, whatever the restorer
    guesses. Restoring and degrading again, x_{s-1} = D(R(x_s, s), s - 1), is as wrong as the restorer. A deterministic
    map: its results have no weights.

    Args:
        x: (n, *shape) images degraded to the last level.
        degrade: D(image, s), the image itself at s = 0.
        restore: R(x, s), a guess of the image.
        levels: the level of x, at least 1.

    Raises:
        ShapeError: the restorer or the degradation returned another shape.

    References:
        Bansal, Borgnia, Chu, Li, Kazemi, Huang, Goldblum, Geiping & Goldstein (2023), Cold Diffusion: Inverting
        Arbitrary Image Transforms Without Noise, NeurIPS, Algorithm 2.

    Example:
        >>> import torch
        >>> fade = lambda image, s: image + 0.5 * s
        >>> cold_diffusion(torch.full((1, 1), 2.5), fade, lambda x, s: 0 * x, levels=5)
        tensor([[0.]])
    """
    check_networks(degrade=degrade, restore=restore)
    check_at_least(1, levels=levels)
    with torch.no_grad():
        for s in range(levels, 0, -1):
            guess = restore(x, s)
            change = degrade(guess, s - 1) - degrade(guess, s)
            if guess.shape != x.shape or change.shape != x.shape:
                raise ShapeError(
                    f"for images of shape {tuple(x.shape)} the restorer returned {tuple(guess.shape)} and the "
                    f"degradation {tuple(change.shape)}"
                )
            x = x + change
    return x
