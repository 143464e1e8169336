"""Guesses that become short and rare where they keep failing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from motes.language.speculation.guesses import Guesser

RAREST = 64
"""The most tokens from one trial to the next."""


class Patient(Guesser):
    """Another guesser, asked less often by rows whose guesses failed.

    After one guess whose first token was wrong nothing changes; after m > 1 of them in a row a text is guessed at only
    where its length is a multiple of 2^(m - 1), at most 64, and by one token. A right token makes up for all. This
    depends on the row's own text only, and rows of one length try together, so that the others wait for them less.
    """

    def __init__(self, guesser: Guesser):
        self.guesser = guesser
        self.length, self.failed = [0], [0]
        self.last: list[list[int]] = [[]]
        """What is left of each row's latest guess."""
        self.fresh = [False]
        """Whether nothing is known yet of that guess."""

    def extend(self, parent: Tensor, token: Tensor) -> None:
        self.guesser.extend(parent, token)
        length, failed, last, fresh = [], [], [], []
        for p, v in zip(parent.tolist(), token.tolist(), strict=True):
            n, m, guess, new = self.length[p], self.failed[p], self.last[p], self.fresh[p]
            if v >= 0:
                n += 1
                if guess and guess[0] == v:
                    m, guess, new = 0, guess[1:], False
                else:
                    m, guess, new = m + new, [], False
            length.append(n)
            failed.append(m)
            last.append(guess)
            fresh.append(new)
        self.length, self.failed, self.last, self.fresh = length, failed, last, fresh

    def guess(self, rows: Sequence[int], most: Sequence[int]) -> list[list[int]]:
        found = self.guesser.guess(rows, [self._most(i, k) for i, k in zip(rows, most, strict=True)])
        for i, guess in zip(rows, found, strict=True):
            self.last[i], self.fresh[i] = guess, bool(guess)
        return found

    def _most(self, i: int, most: int) -> int:
        m = self.failed[i]
        if m < 2:
            return most
        return min(most, 1) if self.length[i] % min(2 ** (m - 1), RAREST) == 0 else 0
