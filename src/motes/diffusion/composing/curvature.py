"""The mean second derivative of each model's log-density, measured from the noise of the steps at no evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.diffusion.composing.crosswise import is_split, other_half
from motes.diffusion.composing.step_weights import Grid


def measured(
    grid: Grid,
    k: int,
    x: Tensor,
    weight: Tensor,
    xi: Tensor,
    change: Tensor,
    std: Tensor,
    crosswise: bool,
) -> tuple[Tensor, Tensor]:
    """(2, M) the curvature of each model for each half of the particles, and an upper bound of the composition's.

    Args:
        grid, k: the step done.
        x: (N, ...) where it began.
        weight: (N,) normalised, before it.
        xi, change, std: as for `curvatures`.
        crosswise: whether each half's comes from the other half, as it must where weights hang on it.
    """
    each = curvatures(xi, change, std)
    if crosswise and is_split(halves := other_half(weight)):
        found = fitted_curvatures(halves, x, xi, change, std)
    else:
        found = torch.stack([weight, weight]) @ each
    whole = each @ grid.exponents[k + 1]
    centre = weight @ whole
    return found, centre + 5 * (weight.square() @ (whole - centre).square()).sqrt()


def curvatures(xi: Tensor, change: Tensor, std: Tensor) -> Tensor:
    """(N, M) what each particle says of minus the mean second derivative of each model's log-density.

    Stein's identity for the noise of the step: E[xi . s(y)] = std E[div s(y)]; the score at x, which the noise does not
    know, is taken off to calm the estimate. It costs no evaluation.

    Args:
        xi: (N, ...) the noise drawn.
        change: (N, M, ...) scores at y less those at x.
        std: of the step, one for all or (N,).
    """
    flat = change.cpu().to(torch.float64).flatten(2)
    each = torch.einsum("nd,nmd->nm", xi.cpu().to(torch.float64).flatten(1), flat)
    return -each / (std.reshape(-1, 1) * flat.shape[2])


def fitted_curvatures(weight: Tensor, x: Tensor, xi: Tensor, change: Tensor, std: Tensor) -> Tensor:
    """(R, M) the curvatures of `curvatures`, from all particles together under each row of weights.

    A slope instead of a mean: the noise is taken without what of it looks like x by chance, and its own sum of squares
    replaces the expected one. For scores that are linear in x and alike in every direction nothing of the
    estimate is left to chance; with the mean, 50 particles in one dimension put a normaliser off by a quarter.

    Args:
        weight: (R, N), rows that sum to 1.
        x: (N, ...) where the step began.
        xi, change, std: as above.
    """
    flat = change.cpu().to(torch.float64).flatten(2)
    noise, begun = (v.cpu().to(torch.float64).flatten(1) for v in (xi, x))
    found = []
    for w in weight:
        z, u = noise - w @ noise, begun - w @ begun
        z = z - (w @ (z * u).sum(1)) / (w @ u.square().sum(1)).clamp(min=1e-300) * u
        moved = w @ (std * (z * noise).sum(1))
        found.append(-torch.einsum("n,nd,nmd->m", w, z, flat) / moved.clamp(min=1e-300))
    return torch.stack(found)
