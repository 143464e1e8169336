"""Reparameterised sampling: all places are drawn, and the most certain of the draws stay."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.diffusion.discrete.order import first, left_masked
from motes.diffusion.discrete.process import MASK, TokenProcess
from motes.diffusion.discrete.step import StepRule, TokenContext, TokenMove, needs_masks
from motes.errors import MotesError
from motes.rng import Rng

ROUTED = cited("zheng2024reparameterized", "which draws stay")
MASKGIT = cited("chang2022", "which draws stay")


@dataclass(frozen=True)
class Routed(StepRule):
    """Every masked place is drawn; the draws of the largest probability stay, the others are masked again.

    The choice looks at the draws themselves, so likely tokens are preferred: the law is sharper than the model's, and
    no number of steps mends it. Weights of guided draws are ratios over all places drawn, whether they stay or not.

    Args:
        again: whether tokens that stayed before compete by the probability they were drawn with, and may be masked
            again (the reparameterised sampler); if not, they stay (MaskGIT).
        temperature: Gumbel noise times this, times the time, is added to the log-probabilities that are compared.

    References:
        Zheng, Yuan, Yu & Kong (2024), A Reparameterized Discrete Diffusion Model for Text Generation, COLM.
        Chang, Zhang, Jiang, Liu & Freeman (2022), MaskGIT, CVPR, section 3.2.
    """

    again: bool = False
    _: KW_ONLY
    temperature: float = 0.0

    references: ClassVar[tuple[Reference, ...]] = (ROUTED, MASKGIT)

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise MotesError(f"temperature must not be negative, not {self.temperature}")

    def plan(self, rng: Rng, context: TokenContext) -> TokenMove:
        return TokenMove(context.tokens < 0, context.log_p0)

    def settle(self, rng: Rng, context: TokenContext, tokens: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        rank = score
        if self.temperature:
            rank = rank + self.temperature * context.t * rng.at("route").gumbel(tuple(tokens.shape)).to(tokens.device)
        free = context.free.expand(tokens.shape)
        among = free if self.again else (context.tokens < 0)
        goes = left_masked(context.process, context.s, int(context.free.sum()))
        # those of smallest rank go back to the mask
        gone = first(-rank, among, torch.full((len(tokens),), goes, device=tokens.device))
        return torch.where(gone, MASK, tokens), torch.where(gone, 0.0, score)

    def check(self, process: TokenProcess) -> None:
        needs_masks(self, process)

    def error(self, process: TokenProcess, times: Tensor, free: int) -> str:
        return (
            "the rule keeps the likelier draws, so its chain is sharper than the model at any number of steps; the "
            "weights are exact for the chain"
        )
