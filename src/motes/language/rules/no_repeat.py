"""No sequence of n tokens twice."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import occurs, renormalised, tokens_so_far


@rules.register
@dataclass(frozen=True)
class NoRepeat(Rule):
    """Drop every token that would complete a sequence of n tokens that the text already has.

    kept is the log of the mass p(S) of what is left; the law of whole texts is p(y) on the texts without a repeated
    sequence of n tokens. Where every token would repeat one, the run stops with an error.

    Args:
        n: at least 1.
        prompt: whether sequences of the prompt count.

    References:
        Paulus, Xiong & Socher (2018), A deep reinforced model for abstractive summarization, ICLR, section 2.5.
    """

    n: int = 3
    _: KW_ONLY
    prompt: bool = True

    def __post_init__(self) -> None:
        check.whole("no_repeat", "n", self.n, 1)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        tokens = tokens_so_far(seen.prompt, seen.tokens, self.prompt)
        rows, vocabulary = log_prob.shape
        if tokens.shape[1] < self.n:
            return log_prob, torch.zeros(rows, dtype=log_prob.dtype)
        length = seen.length + (len(seen.prompt) if self.prompt else 0)
        at = length[:, None] - (self.n - 1) + torch.arange(self.n - 1)
        last = tokens.gather(1, at.clamp(min=0))  # the n - 1 tokens before the next one
        window = tokens.unfold(1, self.n, 1)
        same = (window[..., :-1] == last[:, None]).all(-1) & (length >= self.n)[:, None] & (window[..., -1] >= 0)
        banned = occurs(torch.where(same, window[..., -1], -1), vocabulary)
        return renormalised(log_prob.masked_fill(banned, -torch.inf))
