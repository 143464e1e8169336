"""Texts that all weigh the same, although others might not: what a run then says instead of an error bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from motes.core.estimate.unearned import chose_nothing
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.language.constraint import Constraint
from motes.language.rule import Rule

ROUNDING = 1e-9
STAGES = ((16, 0.3, 1.9), (8, 0.3, 1.1), (4, 0.1, 0.9))
"""Fewer families than the first number have not seen a reward well, if those above a level of it carry more than the
second of the weight and exceed that level by more than the third on average, nats. Of 13 rewards of the table of
`tests/language/test_strong_rewards.py` (so much a letter, an opening letter, a pair) and 12 to 256 texts, bars cover in
.93, without the first and the last in .91, and three times as many are wrong by more than four of them."""
EVENT = 4
"""Families that are enough where only two rewards were met, as of an event: nothing says that they go on."""
MOST_LEVELS = 17


class GenerationTask(Protocol):
    """What was asked of texts, as `Generation` holds it."""

    @property
    def rules(self) -> Sequence[Rule]: ...
    @property
    def constraint(self) -> Constraint | None: ...
    @property
    def reward(self) -> object: ...
    @property
    def lookahead(self) -> object: ...


def no_spread(generation: GenerationTask, particles: Particles) -> StandardError | None:
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


def same_reward(generation: GenerationTask, worth: Tensor, particles: Particles) -> StandardError | None:
    """Why there is no error bar, if the rewards (M,) of all texts that count are the same; else None.

    Without a constraint, texts of weight zero are those that the reward forbids, and it has told texts apart.
    """
    if generation.reward is None or particles.n == 1 or not len(worth) or not particles.x["finished"].all():
        return None
    if generation.constraint is None and bool(torch.isneginf(particles.log_weight).any()):
        return None
    if float(worth.max() - worth.min()) > ROUNDING or counted(generation, particles.x):
        return None
    return chose_nothing("the reward", float(worth[0]), f"{len(worth)} texts", particles.n)


def seen_by_few(generation: GenerationTask, particles: Particles) -> StandardError | None:
    """Why there is no error bar, if few families of texts found the rewards that decide; else None.

    A level of the reward is looked at from above: where few families lie above it, carry much of the weight and exceed
    it by much (`STAGES`), higher rewards may as well have been missed. Counted in families, since resampling makes many
    copies of one find.
    """
    if generation.reward is None or particles.n == 1:
        return None
    alive = ~torch.isneginf(particles.log_weight) & particles.x["finished"]
    worth, root = particles.x["provisional"][alive], particles.root[alive]
    if (same := same_reward(generation, worth, particles)) is not None:
        return same
    weight = torch.softmax(particles.log_weight, 0)[alive]
    levels = torch.unique(worth).flip(0)
    for level in levels[1:MOST_LEVELS]:
        above = worth > level + ROUNDING
        families, which = torch.unique(root[above], return_inverse=True)
        best = torch.zeros(len(families), dtype=worth.dtype).scatter_reduce(
            0, which, worth[above] - level, "amax", include_self=False
        )
        if _too_few(len(families), float(weight[above].sum()), float(best.mean()), len(levels)):
            return _missed(len(families), float(best.mean()))
    return None


def reached_by_few(first: Tensor, root: Tensor, particles: Particles) -> StandardError | None:
    """Why there is no error bar of texts that were rewritten, if few families had found their rewards before; or None.

    Texts that are rewritten rise from reward to reward, and the evidence, which is gathered on the way, is low by what
    they have not risen to yet: where few of the first texts had reached the rewards that decide in the end (`STAGES`,
    for all of them that first texts had, and what lies above), intervals of two standard errors held .5 of 60 truths,
    and .9 where many had.

    Args:
        first: (N,) the rewards of the texts as they were written, -inf for those of weight zero.
        root: (N,) their families.
        particles: the texts of today.
    """
    worth, weight = particles.x["provisional"], torch.softmax(particles.log_weight, 0)
    levels = torch.unique(first[~torch.isneginf(first)]).flip(0)
    every = len(torch.unique(torch.cat([levels, worth[weight > 0]])))
    for level in levels[:MOST_LEVELS]:
        families = len(torch.unique(root[first > level + ROUNDING]))
        above = worth > level + ROUNDING
        share = float(weight[above].sum())
        excess = float(weight[above] @ (worth[above] - level)) / share if share > 0 else 0.0
        if _too_few(families, share, excess, every):
            return _missed(families, excess, rewritten=True)
    return None


def _too_few(families: int, share: float, excess: float, levels: int) -> bool:
    """Whether so few families have not seen the rewards above a level well: their share and mean excess, nats."""
    return any(
        families < (many if levels > 2 else min(many, EVENT)) and share > heft and excess > steep
        for many, heft, steep in STAGES
    )


def _missed(families: int, excess: float, rewritten: bool = False) -> StandardError:
    """The missing error bar, and why."""
    said = (
        f"{families} famil{'y' if families == 1 else 'ies'} of texts found the rewards that decide, {excess:.2g} nats "
    )
    if rewritten:
        said += (
            "above the next lower one, before texts were rewritten: what these rose to does not tell what they missed. "
            "Use more particles, steer= or a twist"
        )
    else:
        said += (
            "above the next lower one: higher ones may have been missed. Use more particles, steer=, a twist, or "
            "ResampleMove(generation, temper=True)"
        )
    return StandardError(math.nan, "none", said, means=said)


def counted(generation: GenerationTask, x: dict[str, Any]) -> bool:
    """Whether the distinct texts are all that could be drawn, as far as the law they were drawn from is known."""
    if generation.rules or generation.lookahead is not None:
        return False
    law = (x["log_prob"] - x["kept"]).sum(1)
    texts = zip(x["tokens"], x["length"].tolist(), strict=True)
    distinct = {tuple(tokens[:k].tolist()): i for i, (tokens, k) in enumerate(texts)}
    return float(law[list(distinct.values())].exp().sum()) > 1 - ROUNDING


def reward_remarks(generation: GenerationTask, particles: Particles) -> list[str]:
    """A remark where the reward was the same for every text, and so chose nothing."""
    worth = particles.x["provisional"][~torch.isneginf(particles.log_weight)]
    if same_reward(generation, worth, particles) is None:
        return []
    return [
        f"the reward was {float(worth[0]):.4g} for each of the {len(worth)} texts: if it tells "
        "texts apart, none that it prefers was found. More particles, steer=, a twist, or "
        "ResampleMove(generation, temper=True) look for them"
    ]
