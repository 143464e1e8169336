"""The most probable tokens as long as their entropy stays below a share of the whole."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.errors import check_name
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import entropy, keep_best


@rules.register
@dataclass(frozen=True)
class TopH(Rule):
    """Keep the most probable tokens as long as the entropy of what is kept is at most `share` of the law's entropy.

    With Z = p(S) and A = -sum_S p log p the kept law q has H(q) = A / Z + log Z, which grows with every token that is
    added. `criterion="paper"` keeps the longest beginning with H(q) <= share H(p) (at least one token).
    `criterion="partial"` keeps it while A <= share H(p): what the released code and transformers do, which may keep a
    law of too large an entropy. Of equal tokens those with lower numbers come first.

    kept is the log of the mass p(S); the law of whole texts is p(y) where each token lies in its set.

    Args:
        share: in (0, 1]; the authors use 0.4.
        criterion: "paper" or "partial".

    References:
        Baghaei Potraghloo et al. (2025), Top-H decoding: adapting the creativity and coherence with bounded entropy in
            text generation, NeurIPS, section 4.
    """

    share: float = 0.4
    _: KW_ONLY
    criterion: str = "paper"

    def __post_init__(self) -> None:
        check.number("top_h", "share", self.share, 0, 1, open_low=True)
        check_name("criterion of top_h", self.criterion, ("paper", "partial"))

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        bound = self.share * entropy(log_prob)[:, None] + 1e-12  # rounding, where a share of 1 keeps everything

        def enough(ranked: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            p = ranked.exp()
            part, mass = torch.special.entr(p).cumsum(-1), p.cumsum(-1)
            reached = part > bound[rows] if self.criterion == "partial" else part / mass + mass.log() > bound[rows]
            reached[:, 0] = False
            count = torch.where(reached.any(-1), reached.int().argmax(-1), ranked.shape[1])
            return count, reached[:, -1]

        return keep_best(log_prob, enough)
