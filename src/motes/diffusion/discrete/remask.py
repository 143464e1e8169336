"""Remasking: tokens that were filled in may be masked again, so that errors can be mended."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

from torch import Tensor

from motes.core.cite import Reference, cited
from motes.diffusion.discrete.process import TokenProcess
from motes.diffusion.discrete.step import PARALLEL, StepRule, TokenContext, TokenMove, needs_masks
from motes.errors import check_name, check_share
from motes.rng import Rng

HOW = ("rescale", "cap")


@dataclass(frozen=True)
class Remask(StepRule):
    """Parallel unmasking in which a token that is there is masked again with probability sigma.

    A masked place is drawn with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), so that as many places are
    masked at each time as without it; sigma is at most (1 - alpha_s) / alpha_t and 1. Every place keeps its exact law
    given the data, and the chain is the model's in the limit of many steps. More places are drawn in parallel than
    without it, so with a perfect model it costs more at as many steps; it is for models whose predictions from few
    tokens are bad, since what they get wrong early is drawn again.

    Args:
        eta: how much is masked again: 0 is `Posterior`.
        how: sigma is eta times the largest that is possible ("rescale"), or eta where that is possible ("cap").
        since, until: remask only at times t in [until, since].

    References:
        Wang, Schiff, Sahoo & Kuleshov (2025), Remasking Discrete Diffusion Models with Inference-Time Scaling,
        NeurIPS (arXiv 2503.00307), sections 3 and 4 ("cap" and "rescale").
    """

    eta: float = 0.1
    _: KW_ONLY
    how: Literal["rescale", "cap"] = "rescale"
    since: float = 1.0
    until: float = 0.0

    references: ClassVar[tuple[Reference, ...]] = (cited("wang2025remasking", "remasking"),)

    def __post_init__(self) -> None:
        check_share("[0, 1]", eta=self.eta)
        check_name("way to remask", self.how, HOW)

    def plan(self, rng: Rng, context: TokenContext) -> TokenMove:
        tokens = context.tokens
        fill, sigma = self.probabilities(context.process, context.t, context.s)
        u = rng.at("places").uniform(tuple(tokens.shape)).to(tokens.device)
        masked = tokens < 0
        return TokenMove(masked & (u < fill), context.log_p0, ~masked & (u < sigma) & context.free)

    def probabilities(self, process: TokenProcess, t: float, s: float) -> tuple[float, float]:
        """The probabilities, in the step from t to s, that a masked place is drawn and that a filled one is masked."""
        before, after = float(process.alpha(t)), float(process.alpha(s))
        most = min(1.0, (1 - after) / before) if before > 0 else 1.0
        sigma = self.eta * most if self.how == "rescale" else min(self.eta, most)
        sigma = sigma if self.until <= t <= self.since else 0.0
        return min(1.0, (after - (1 - sigma) * before) / (1 - before)), sigma

    def check(self, process: TokenProcess) -> None:
        needs_masks(self, process)

    def error(self, process: TokenProcess, times: Tensor, free: int) -> str:
        return PARALLEL if free > 1 else ""
