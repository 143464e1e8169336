"""The smallest set of most probable tokens that reaches a mass (top-p)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.errors import MotesError
from motes.language.rule import Rule, Seen, renormalised


@dataclass(frozen=True)
class Nucleus(Rule):
    """Keep the most probable tokens until their mass reaches `mass`, with the one that crosses it (top-p).

    Of tokens with equal probability those with lower numbers come first.

    Args:
        mass: in (0, 1].

    References:
        Holtzman, Buys, Du, Forbes & Choi (2020), The curious case of neural text degeneration, ICLR, section 3.1.
    """

    mass: float

    def __post_init__(self) -> None:
        if not 0 < self.mass <= 1:
            raise MotesError(f"the mass of a nucleus must lie in (0, 1], not {self.mass!r}")

    def __call__(self, log_prob: Tensor, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        ranked, order = torch.sort(log_prob, dim=-1, descending=True, stable=True)
        before = ranked.exp().cumsum(-1) - ranked.exp()
        dropped = before >= self.mass
        dropped[:, 0] = False
        return renormalised(log_prob.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), -torch.inf))


nucleus = Nucleus
