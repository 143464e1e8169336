"""The k most probable tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.errors import MotesError
from motes.language.rule import Rule, Seen, renormalised


@dataclass(frozen=True)
class TopK(Rule):
    """Keep the `k` most probable tokens; of equal ones those with lower numbers.

    Args:
        k: at least 1.

    References:
        Fan, Lewis & Dauphin (2018), Hierarchical neural story generation, ACL, section 5.4.
    """

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise MotesError(f"top_k needs a whole number of at least 1, not {self.k!r}")

    def __call__(self, log_prob: Tensor, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        order = torch.sort(log_prob, dim=-1, descending=True, stable=True).indices[:, self.k :]
        return renormalised(log_prob.scatter(1, order, -torch.inf))


top_k = TopK
