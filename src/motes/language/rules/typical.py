"""The tokens whose surprise is nearest to the entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import entropy, keep_best, renormalised, up_to


@rules.register
@dataclass(frozen=True)
class Typical(Rule):
    """Keep the tokens in the order of |-log p - H| until their mass reaches `mass`, with the one that crosses it.

    H is the entropy. The most probable token may be dropped. Of equal tokens those with lower numbers come first
    (transformers keeps all that are tied with the last one).

    kept is the log of the mass p(S) of the set S; the law of whole texts is p(y) where each token lies in its set.

    Args:
        mass: in (0, 1].

    References:
        Meister, Pimentel, Wiher & Cotterell (2023), Locally typical sampling, TACL 11, section 4.
    """

    mass: float

    def __post_init__(self) -> None:
        check.number("typical", "mass", self.mass, 0, 1, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        if self.mass == 1:
            return renormalised(log_prob)
        return keep_best(log_prob, up_to(self.mass), (log_prob + entropy(log_prob)[:, None]).abs_().neg_())
