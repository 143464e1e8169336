"""The power of the next-token law."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from motes.errors import MotesError
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules.ranking import renormalised


@rules.register
@dataclass(frozen=True)
class Temperature(Rule):
    """Sample from p^(1/temperature); below 1 sharper, above 1 flatter.

    Under the kept mass, the law of whole texts becomes p(text)^(1/T) up to one constant.

    Args:
        temperature: positive and finite.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not isinstance(self.temperature, (int, float)) or not 0 < self.temperature < float("inf"):
            raise MotesError(
                f"a temperature must be positive and finite, not {self.temperature!r}; a small one is nearly greedy"
            )

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        return renormalised(log_prob / self.temperature)
