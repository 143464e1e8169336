"""No end before the text has some number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import renormalised


@rules.register
@dataclass(frozen=True)
class MinNewTokens(Rule):
    """Drop the end tokens until the text has `n` tokens.

    kept is the log of the mass of the other tokens; the law of whole texts is p(y) on those with at least n tokens
    besides the end.

    Args:
        n: at least 1.

    References:
        transformers (2023), `MinNewTokensLengthLogitsProcessor`.
    """

    n: int

    def __post_init__(self) -> None:
        check.whole("min_new_tokens", "n", self.n, 1)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        out = log_prob.clone()
        ends = torch.tensor(seen.model.end)
        out[:, ends] = torch.where((seen.length < self.n)[:, None], -torch.inf, out[:, ends])
        return renormalised(out)
