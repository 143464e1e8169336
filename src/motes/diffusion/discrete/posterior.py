"""Steps of all places at once: by the posterior of each place, or by its rates (tau-leaping)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.diffusion.discrete.process import Masked, TokenProcess
from motes.diffusion.discrete.step import PARALLEL, StepRule, TokenContext, TokenMove
from motes.rng import Rng


@dataclass(frozen=True)
class Posterior(StepRule):
    """Each place moves by its exact law given the whole sequence, all at once.

    With a mask, a masked place is drawn with probability (alpha_s - alpha_t) / (1 - alpha_t), from the prediction:
    parallel unmasking. Exact for each place; the places of one step are drawn as if independent, an error that falls
    with the number of steps (see `parallel_cost`).

    References:
        Austin et al. (2021), NeurIPS, section 3; Sahoo et al. (2024), NeurIPS, section 3 (masked).
    """

    references: ClassVar[tuple[Reference, ...]] = (cited("austin2021", "the posterior of each token"),)

    def plan(self, rng: Rng, context: TokenContext) -> TokenMove:
        process, tokens = context.process, context.tokens
        if isinstance(process, Masked):
            u = rng.at("places").uniform(tuple(tokens.shape)).to(tokens.device)
            return TokenMove((tokens < 0) & (u < process.unmasks(context.t, context.s)), context.log_p0)
        law = process.posterior(tokens, context.log_p0, context.t, context.s)
        return TokenMove(context.free.expand(tokens.shape), law)

    def error(self, process: TokenProcess, times: Tensor, free: int) -> str:
        return PARALLEL if free > 1 else ""


@dataclass(frozen=True)
class TauLeap(StepRule):
    """Each place jumps at most once a step, at the rates of the step's beginning.

    Biased at any number of steps, in order 1 / K, even for one place; `Posterior` costs the same and is better where
    the process has it. It is here for models that are trained as rates, and for comparison.

    References:
        Gillespie (2001), Approximate accelerated stochastic simulation of chemically reacting systems, J. Chem. Phys.
        115; Campbell et al. (2022), NeurIPS, section 4.3.
    """

    references: ClassVar[tuple[Reference, ...]] = (cited("campbell2022", "tau-leaping"),)
    finishes: ClassVar[bool] = False

    def plan(self, rng: Rng, context: TokenContext) -> TokenMove:
        rates = context.process.reverse_rates(context.tokens, context.log_p0, context.t) * (context.t - context.s)
        total = rates.sum(-1, keepdim=True)
        jump = torch.log(-torch.expm1(-total)) + torch.log(rates / torch.where(total > 0, total, 1.0))
        law = jump.scatter(-1, context.process.index(context.tokens)[..., None], -total)
        return TokenMove(context.free.expand(context.tokens.shape), law)

    def error(self, process: TokenProcess, times: Tensor, free: int) -> str:
        return (
            "tau-leaping holds rates fixed over a step: the weights are exact for this chain, whose law is that of the "
            "model in the limit of many steps only"
        )
