"""One step of texts: the next tokens are drawn and written, one after the other, until the step ends."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from motes.language.generation.prefix import PrefixState
from motes.language.generation.proposals.next_tokens import Propose
from motes.language.generation.step_end import StepEnd
from motes.rng import Rng


def write(
    rng: Rng, state: PrefixState, log_weight: Tensor, propose: Propose, end: StepEnd
) -> tuple[PrefixState, Tensor, int]:
    """Texts one step on, each token drawn from the law of the text before it.

    Args:
        rng: an address of the particles.
        state: of N texts.
        log_weight: (N,) float64, nats, from where on gains are added up; -inf: the text is given up.
        propose: draws the tokens.
        end: says where the step ends.

    Returns:
        The state, its finished texts those that ended, were cut or have no weight; `log_weight` (N,) with the gains;
        how many texts were evaluated.
    """
    inside, evaluated, inner, goes_on = ~state.finished, 0, 0, end.begin(state)
    while inside.any():
        at = rng.at("token", inner=inner)
        state, gained, count = state.extended(inside, propose(at, state, inside))
        log_weight, evaluated, inner = log_weight + gained, evaluated + count, inner + 1
        state = replace(state, finished=state.finished | torch.isneginf(log_weight))
        inside = goes_on(state, inside & ~state.finished, log_weight)
    return state, log_weight, evaluated
