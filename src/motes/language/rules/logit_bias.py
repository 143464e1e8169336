"""Some tokens gain or lose nats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import renormalised


@rules.register
@dataclass(frozen=True)
class LogitBias(Rule):
    """Add a number of nats to the logits of some tokens; -inf bans a token.

    kept is log sum p exp(bias); the law of whole texts is p(y) exp(sum of the biases of its tokens) up to one constant.

    Args:
        bias: token numbers to nats, below +inf.

    References:
        OpenAI API (2020), `logit_bias`.
    """

    bias: Mapping[int, float]

    def __post_init__(self) -> None:
        if not isinstance(self.bias, Mapping) or not self.bias:
            raise MotesError(f"logit_bias needs a dictionary of token numbers to nats, not {self.bias!r}")
        check.tokens("logit_bias", tuple(self.bias))
        bad = {token: nats for token, nats in self.bias.items() if not nats < math.inf}
        if bad:
            raise MotesError(f"the biases of logit_bias must be below +inf and not NaN, unlike {bad!r}")
        object.__setattr__(self, "bias", dict(self.bias))

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        check.mask("logit_bias", tuple(self.bias), log_prob.shape[1])
        out = log_prob.clone()
        out[:, list(self.bias)] += torch.tensor(list(self.bias.values()), dtype=log_prob.dtype)
        return renormalised(out)
