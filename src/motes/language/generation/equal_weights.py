"""Texts that all weigh the same, although others might not: what a run then says in the place of an error bar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from motes.core.estimate.upper_tail import FEW, HEFT, MANY, STEEP
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles

if TYPE_CHECKING:
    from motes.language.generation.generation import Generation

ROUNDING = 1e-9


def no_spread(generation: Generation, particles: Particles) -> StandardError | None:
    """Why there is no error bar, if the texts of a generation weigh the same and were not resampled; else None.

    Without constraint and reward they cannot weigh otherwise, nor where the distinct texts are all that can be drawn:
    the error bar is then zero, and right.
    """
    n, weight = particles.n, particles.log_weight
    varies = generation.reward is not None or generation.constraint is not None
    apart = float(weight.max() - weight.min())  # NaN if all are zero
    if not varies or n == 1 or not apart <= ROUNDING or len(torch.unique(particles.root)) < n:
        return None
    if counted(generation, particles.x):
        return None
    said = f"all {n} texts weigh the same, so that their spread says nothing: texts that weigh otherwise have a "
    said = f"{said}probability of at most about {min(1.0, 3 / n):.2g} to be drawn"
    # a reward that no text earned has chosen nothing: the means are those of the model alone
    return StandardError(math.nan, "none", said, means=said if generation.reward is not None else "")


def seen_by_few(generation: Generation, particles: Particles) -> StandardError | None:
    """Why there is no error bar, if few families of texts found the rewards that decide; else None.

    A level of the reward is looked at from above: where fewer than `MANY` families lie above it, carry more than `HEFT`
    of the weight and exceed it by more than `STEEP` on average, higher rewards may as well have been missed. Where only
    two rewards were met, as of an event, nothing says that they go on, and `FEW` families are enough. Counted in
    families, since resampling makes many copies of one find.
    """
    if generation.reward is None or particles.n == 1:
        return None
    alive = ~torch.isneginf(particles.log_weight) & particles.x["finished"]
    worth, root = particles.x["provisional"][alive], particles.root[alive]
    weight = torch.softmax(particles.log_weight, 0)[alive]
    levels = torch.unique(worth).flip(0)
    enough = MANY if len(levels) > 2 else FEW
    for level in levels[1 : MANY + 1]:
        above = worth > level + ROUNDING
        families, which = torch.unique(root[above], return_inverse=True)
        if len(families) >= enough:
            return None
        best = torch.zeros(len(families), dtype=worth.dtype).scatter_reduce(
            0, which, worth[above] - level, "amax", include_self=False
        )
        if float(weight[above].sum()) > HEFT and float(best.mean()) > STEEP:
            said = (
                f"{len(families)} famil{'ies' if len(families) > 1 else 'y'} of texts found the rewards that decide, "
                f"{float(best.mean()):.2g} nats above the next lower one: higher ones may have been missed. Use more "
                "particles, steer=, a twist, or Rewriting(generation, temper=True)"
            )
            return StandardError(math.nan, "none", said, means=said)
    return None


def counted(generation: Generation, x: dict[str, Any]) -> bool:
    """Whether the distinct texts are all that could be drawn, as far as the law they were drawn from is known."""
    if generation.rules or generation.lookahead is not None:
        return False
    law = (x["log_prob"] - x["kept"]).sum(1)
    texts = zip(x["tokens"], x["length"].tolist(), strict=True)
    distinct = {tuple(tokens[:k].tolist()): i for i, (tokens, k) in enumerate(texts)}
    return float(law[list(distinct.values())].exp().sum()) > 1 - ROUNDING


def unearned(generation: Generation, particles: Particles) -> list[str]:
    """A remark where the reward was the same for every text, and so chose nothing."""
    if generation.reward is None or no_spread(generation, particles) is None:
        return []
    return [
        f"the reward was {float(particles.x['provisional'][0]):.4g} for each of the {particles.n} texts: if it tells "
        "texts apart, none that it prefers was found. More particles, steer=, a twist, or "
        "Rewriting(generation, temper=True) look for them"
    ]
