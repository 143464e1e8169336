"""The mass of chosen tokens raised or lowered at each step."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check


@rules.register
@dataclass(frozen=True)
class GammaSampling(Rule):
    """Change the mass P of a set of tokens to P^tan(pi gamma / 2) at each step; within and outside ratios stay.

    Gamma below 1/2 raises the set's mass, 1/2 leaves it, above lowers it. Several sets are several rules only as long
    as they do not freeze each other; here is one set.

    What it gives is normalised by itself, so kept is zero: the law of whole texts is the product of the changed
    next-token laws, with and without `globalise`. Where the set or its complement has no mass, nothing changes.

    Args:
        tokens: the numbers of the tokens.
        gamma: in (0, 1).

    References:
        Wu & Sun (2022), Sampling with attribute-related information for controlling language models,
            arXiv 2205.06036, section 3.
    """

    tokens: tuple[int, ...]
    _: KW_ONLY
    gamma: float = 0.3

    def __post_init__(self) -> None:
        check.number("gamma_sampling", "gamma", self.gamma, 0, 1, open_low=True, open_high=True)
        check.tokens("gamma_sampling", self.tokens)
        object.__setattr__(self, "tokens", tuple(self.tokens))

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        chosen = check.mask("gamma_sampling", self.tokens, log_prob.shape[1])
        inside = torch.logsumexp(log_prob.masked_fill(~chosen, -torch.inf), -1)
        outside = torch.logsumexp(log_prob.masked_fill(chosen, -torch.inf), -1)
        raised = math.tan(math.pi * self.gamma / 2) * inside
        rest = torch.log(-torch.expm1(raised.clamp(max=-1e-300)))
        shift = torch.where(chosen, (raised - inside)[:, None], (rest - outside)[:, None])
        plain = (torch.isneginf(inside) | torch.isneginf(outside))[:, None]
        return torch.where(plain | torch.isneginf(log_prob), log_prob, log_prob + shift), torch.zeros_like(inside)
