"""Prefixes that are kept as texts, for models without a cache."""

from __future__ import annotations

from torch import Tensor

from motes.language.models.model import Prefixes, check_keep, check_shorten, kept_logits


class TextPrefixes(Prefixes):
    """Prefixes that hold their texts: keeping and shortening what was looked ahead is the same for all of these."""

    texts: list[tuple[int, ...]]
    looked: tuple[Tensor, Tensor, Tensor] | None

    def keep(self, count: Tensor) -> None:
        check_keep(count, None if self.looked is None else self.looked[1])
        assert self.looked is not None
        tokens, _, out = self.looked
        self.logits = kept_logits(self.logits, out, count)
        self.texts = [(*text, *tokens[i, : int(count[i])].tolist()) for i, text in enumerate(self.texts)]
        self.length, self.looked = self.length + count, None

    def shorten(self, length: Tensor, logits: Tensor) -> None:
        check_shorten(length, self.length)
        self.texts = [text[:k] for text, k in zip(self.texts, length.tolist(), strict=True)]
        self.length, self.logits, self.looked = length, logits.to(self.logits), None
