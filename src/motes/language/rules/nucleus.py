"""The smallest set of most probable tokens that reaches a mass (top-p)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from motes.errors import MotesError
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules.ranking import keep_best, renormalised, up_to


@rules.register
@dataclass(frozen=True)
class Nucleus(Rule):
    """Keep the most probable tokens until their mass reaches `mass`, with the one that crosses it (top-p).

    Of tokens with equal probability those with lower numbers come first.

    kept is the log of the mass p(S) of the set S; the law of whole texts is p(y) where each token lies in its set.

    Args:
        mass: in (0, 1].

    References:
        Holtzman, Buys, Du, Forbes & Choi (2020), The curious case of neural text degeneration, ICLR, section 3.1.
    """

    mass: float

    def __post_init__(self) -> None:
        if not isinstance(self.mass, (int, float)) or not 0 < self.mass <= 1:
            raise MotesError(f"the mass of a nucleus must lie in (0, 1], not {self.mass!r}")

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        if self.mass == 1:
            return renormalised(log_prob)
        return keep_best(log_prob, up_to(self.mass))
