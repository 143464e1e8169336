"""What models and rewards returned, refused where it is not finite or has another shape."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.errors import NanLogPotential, ShapeError, name_particles

EARLY = (
    'reward: before the end it would kill what may end well; a sampler with schedule="end" (ReverseDiffusion, where '
    "this one takes no schedule) asks about what is finished only"
)
"""What to look at where a reward is -inf on the way."""


def checked_reward(reward: Tensor, n: int, what: str = "reward") -> Tensor:
    """The reward (n,) as float64, or a ShapeError."""
    if not isinstance(reward, Tensor) or reward.shape != (n,):
        found = tuple(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
        raise ShapeError(f"the {what} must return one number a particle, a tensor of shape ({n},), not {found}")
    return reward.to(torch.float64)


def not_finite(x: Tensor) -> Tensor:
    """(N,) which rows hold a number that is not finite."""
    flat = x.flatten(1)
    good = torch.isfinite(flat.sum(1)).cpu()  # a sum is finite only if all of its terms are
    return ~good if bool(good.all()) else ~torch.isfinite(flat).all(1).cpu()


FAR = 1e4
"""How many deviations of data and noise from zero a guided state must be to be called run away."""


def blamed(x: dict[str, Tensor], bad: Tensor, guided: bool, levels: float, whose: str) -> str:
    """What to look at for particles that are marked: the guidance, if it has moved one of them far away.

    Args:
        x: the particles; "state" (N, ...).
        bad: (N,) which of them are marked.
        guided: whether there is guidance.
        levels: alpha + sigma, the size of states of data of unit deviation.
        whose: what to look at otherwise.
    """
    if not guided or not bool(bad.any()):
        return whose
    far = float(x["state"][bad.to(x["state"].device)].detach().abs().max())
    if far < FAR * levels:
        return whose
    return (
        f"guidance: it is too strong for these steps and moved states to {far:.1g}, where neither model nor reward "
        "were asked before. Take weaker guidance or more steps"
    )


def refuse(bad: Tensor, what: str, whose: str) -> None:
    """Raise for the particles that are marked.

    Raises:
        NanLogPotential: some are.
    """
    if bool(bad.any()):
        raise NanLogPotential(f"{what} for {name_particles(bad.nonzero().flatten().tolist())}; look at the {whose}")
