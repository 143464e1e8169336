"""An end of text that becomes certain as the text grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check


@rules.register
@dataclass(frozen=True)
class SelfTerminating(Rule):
    """Give the end of text the probability 1 - (1 - epsilon)^t (1 - e) at token t, e what the law gives it.

    All other tokens are multiplied by (1 - epsilon)^t. The probability of an end is at least 1 - (1 - epsilon)^t, so
    that texts end with probability one under every rule behind it that keeps an end that is likely enough, and it need
    not grow with t. Several end tokens share it as they did; where none has mass the first takes it.

    What it gives is normalised by itself, so kept is zero: the law of whole texts is the product of the changed
    next-token laws, with and without `globalise`.

    Args:
        epsilon: in (0, 1).

    References:
        Choi, Lee & Cho (2023), A non-monotonic self-terminating language model, ICLR, definition 3.
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check.number("self_terminating", "epsilon", self.epsilon, 0, 1, open_low=True, open_high=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        goes_on = (seen.length + 1).double()[:, None] * math.log1p(-self.epsilon)
        ends = torch.tensor(seen.model.end)
        before = log_prob[:, ends]
        end = torch.logsumexp(before, -1, keepdim=True)
        within = torch.where(
            torch.isneginf(end), torch.where(torch.arange(len(ends)) == 0, 0.0, -torch.inf), before - end
        )
        out = log_prob + goes_on
        out[:, ends] = within + torch.log(-torch.expm1(goes_on) + goes_on.exp() * end.exp())
        return out, torch.zeros_like(end[:, 0])
