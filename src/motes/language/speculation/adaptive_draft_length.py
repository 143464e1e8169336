"""Guesses that become short and rare where they keep failing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from motes.language.speculation.drafts import Drafter

RAREST = 64
"""The most tokens from one trial to the next."""


class AdaptiveDrafter(Drafter):
    """Another drafter, asked for more by rows whose guesses were right and less often by those whose guesses failed.

    Guesses begin with one token. One that was right throughout doubles the next, one whose first token was wrong halves
    it. Each failure also counts two and each success takes one back: with m > 0 a text is guessed at only where its
    length is a multiple of 2^m, at most 64, and by one token. All this depends on the row's own text only, and rows of
    one length try together, so that the others wait for them less.
    """

    drafter: Drafter
    largest: int

    def __init__(self, drafter: Drafter, largest: int):
        self.drafter, self.largest = drafter, largest
        self.rows = [DraftRow()]

    def extend(self, parent: Tensor, token: Tensor) -> None:
        self.drafter.extend(parent, token)
        pairs = zip(parent.tolist(), token.tolist(), strict=True)
        self.rows: list[DraftRow] = [
            self.rows[p] if v < 0 else self.rows[p].with_token(v, self.largest) for p, v in pairs
        ]

    def guess(self, rows: Sequence[int], most: Sequence[int]) -> list[list[int]]:
        found = self.drafter.guess(rows, [min(k, self.rows[i].most) for i, k in zip(rows, most, strict=True)])
        for i, guess in zip(rows, found, strict=True):
            self.rows[i] = replace(self.rows[i], left=tuple(guess), fresh=bool(guess))
        return found


@dataclass(frozen=True)
class DraftRow:
    """What is remembered of a text.

    Attributes:
        length: its tokens.
        size: the tokens of the next guess.
        failed: m.
        left: what is left of the latest guess.
        fresh: whether nothing is known yet of that guess.
    """

    length: int = 0
    size: int = 1
    failed: int = 0
    left: tuple[int, ...] = ()
    fresh: bool = False

    @property
    def most(self) -> int:
        if not self.failed:
            return self.size
        return 1 if self.length % min(2**self.failed, RAREST) == 0 else 0

    def with_token(self, token: int, largest: int) -> DraftRow:
        length = self.length + 1
        if not self.left or self.left[0] != token:
            if not self.fresh:
                return DraftRow(length, self.size, self.failed)
            return DraftRow(length, max(1, self.size // 2), self.failed + 2)
        failed = max(0, self.failed - 1) if self.fresh else self.failed
        size = self.size if len(self.left) > 1 else min(2 * self.size, largest)
        return DraftRow(length, size, failed, self.left[1:])
