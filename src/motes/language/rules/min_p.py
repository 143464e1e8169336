"""The tokens that are not much less probable than the most probable one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import keep_where


@rules.register
@dataclass(frozen=True)
class MinP(Rule):
    """Keep the tokens with p >= ratio * (largest p).

    After a temperature T a ratio r keeps what r^T keeps before it.

    kept is the log of the mass p(S) of the set S; the law of whole texts is p(y) where each token lies in its set.

    Args:
        ratio: in (0, 1].

    References:
        Nguyen, Baker, Neo, Roush, Kirsch & Shwartz-Ziv (2025), Turning up the heat: min-p sampling for creative and
            coherent LLM outputs, ICLR, section 3.
    """

    ratio: float

    def __post_init__(self) -> None:
        check.number("min_p", "ratio", self.ratio, 0, 1, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        return keep_where(log_prob, log_prob >= log_prob.amax(-1, keepdim=True) + math.log(self.ratio))
