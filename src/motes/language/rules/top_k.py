"""The k most probable tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules.ranking import keep_best


@rules.register
@dataclass(frozen=True)
class TopK(Rule):
    """Keep the `k` most probable tokens; of equal ones those with lower numbers.

    kept is the log of their mass p(S); the law of whole texts is p(y) where each token is among its k best.

    Args:
        k: at least 1.

    References:
        Fan, Lewis & Dauphin (2018), Hierarchical neural story generation, ACL, section 5.4.
    """

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise MotesError(f"top_k needs a whole number of at least 1, not {self.k!r}")

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        def enough(ranked: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            count = torch.full((len(ranked),), min(self.k, ranked.shape[1]))
            return count, torch.full_like(count, self.k < ranked.shape[1], dtype=torch.bool)

        return keep_best(log_prob, enough)
