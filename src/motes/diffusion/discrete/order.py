"""Unmasking in an order: as many places a step as the schedule says, chosen at random or by what the model knows."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.diffusion.discrete.process import TokenProcess
from motes.diffusion.discrete.step import PARALLEL, StepRule, TokenContext, TokenMove, needs_masks
from motes.errors import MotesError, check_name
from motes.rng import Rng

ANY_ORDER = cited("uria2014", "conditionals in any order")
PLAN = cited("kim2025worst", "orders that the model chooses")
BY = ("random", "left", "confidence", "margin", "entropy")


@dataclass(frozen=True)
class Ordered(StepRule):
    """The masked places that come first in an order are drawn, until alpha of the free places are filled.

    One place a step (as many steps as masked places, with the "linear" schedule) is exact for any order, also one that
    depends on what is already there: p(x) is the product of the conditionals along it. That is one call of
    the model for each place; with fewer, the places of one step are drawn as if independent, and an order by certainty
    makes this cheap at first and dear at the end.

    Args:
        by: "random"; "left" to right; "confidence", the largest probability first; "margin", the largest gap between
            the two largest probabilities first; "entropy", the smallest first.
        temperature: standard Gumbel noise times this is added to what the order goes by (nats; entropies negated).

    References:
        Uria, Murray & Larochelle (2014), A Deep and Tractable Density Estimator, ICML (any order).
        Kim, Shah, Kontonis, Kakade & Chen (2025), Train for the Worst, Plan for the Best, ICML (margin).
        Ghazvininejad, Levy, Liu & Zettlemoyer (2019), Mask-Predict, EMNLP (confidence).
    """

    by: Literal["random", "left", "confidence", "margin", "entropy"] = "random"
    _: KW_ONLY
    temperature: float = 0.0

    references: ClassVar[tuple[Reference, ...]] = (ANY_ORDER, PLAN)

    def __post_init__(self) -> None:
        check_name("order", self.by, BY)
        if not self.temperature >= 0:
            raise MotesError(f"temperature must not be negative, not {self.temperature}")

    def plan(self, rng: Rng, context: TokenContext) -> TokenMove:
        masked = context.tokens < 0
        wanted = masked.sum(1) - left_masked(context.process, context.s, int(context.free.sum()))
        return TokenMove(first(self._rank(rng, context), masked, wanted), context.log_p0)

    def check(self, process: TokenProcess) -> None:
        needs_masks(self, process)

    def error(self, process: TokenProcess, times: Tensor, free: int) -> str:
        left = [left_masked(process, float(t), free) for t in times]
        return PARALLEL if max(a - b for a, b in pairwise(left)) > 1 else ""

    def _rank(self, rng: Rng, context: TokenContext) -> Tensor:
        """(N, L) float64: the largest are drawn first."""
        shape, device = tuple(context.tokens.shape), context.tokens.device
        if self.by == "random":
            return rng.at("order").uniform(shape).to(device)
        value = certainty(context.log_p0, self.by)
        return value + self.temperature * rng.at("order").gumbel(shape).to(device) if self.temperature else value


def certainty(log_p0: Tensor, by: str) -> Tensor:
    """(N, L) float64: how early each place comes in an order that the prediction (N, L, V) decides."""
    if by == "left":
        return -torch.arange(log_p0.shape[1], dtype=torch.float64, device=log_p0.device).expand(log_p0.shape[:2])
    if by == "confidence":
        return log_p0.amax(-1).to(torch.float64)
    log_p0 = log_p0.to(torch.float64)
    if by == "margin":
        two = log_p0.topk(2, -1).values.exp()
        return two[..., 0] - two[..., 1]
    return -torch.special.entr(log_p0.exp()).sum(-1)


def left_masked(process: TokenProcess, t: float, free: int) -> int:
    """How many of the free places are masked at time t."""
    return round(free * (1 - float(process.alpha(t))))


def first(rank: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """(N, L) bool: the `count` (N,) places of largest rank (N, L), of those in `among`; ties go to the left."""
    worst = -torch.where(among, rank, -torch.inf)
    place = torch.sort(worst, dim=1, stable=True).indices.argsort(1)
    return among & (place < count[:, None])
