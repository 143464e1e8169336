"""Which tokens may follow a place of an automaton over bytes, and how many more each of them needs."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from motes.language.constraints.pieces import Pieces
from motes.language.constraints.schema.automaton import Automaton, Cells
from motes.language.constraints.schema.fewest import Fewest

UNKNOWN, DEAD = -2, -1
MOST = 20_000
"""Places that are remembered, with a kilobyte each, before all are forgotten."""
NEVER = 2**15 - 1
BYTES = 64 * 2**20
"""What the answers for all tokens may take before they are forgotten."""


class Trie:
    """The bytes of a vocabulary as a tree, level by level.

    Attributes:
        levels: for each length, the nodes' parents in the level before, and their bytes.
        tokens: for each length, which node each token of that length ends in, (2, K): node and token.
    """

    def __init__(self, pieces: Pieces):
        self.levels: list[tuple[np.ndarray, np.ndarray]] = []
        self.tokens: list[np.ndarray] = []
        texts = sorted((text, v) for v, text in enumerate(pieces.bytes) if text)
        place: dict[bytes, int] = {b"": 0}
        for length in range(1, pieces.longest + 1):
            texts = [entry for entry in texts if len(entry[0]) >= length]
            before, place = place, {}
            parents, letters, ends = [], [], []
            for text, v in texts:
                beginning = text[:length]
                if beginning not in place:
                    place[beginning] = len(place)
                    parents.append(before[beginning[:-1]])
                    letters.append(beginning[-1])
                if len(text) == length:
                    ends.append((place[beginning], v))
            self.levels.append((np.array(parents, dtype=np.int64), np.array(letters, dtype=np.int64)))
            self.tokens.append(np.array(ends, dtype=np.int64).reshape(-1, 2).T)


_TRIES: WeakKeyDictionary[Pieces, Trie] = WeakKeyDictionary()


def trie_of(pieces: Pieces) -> Trie:
    """The tree of a vocabulary, made once."""
    if pieces not in _TRIES:
        _TRIES[pieces] = Trie(pieces)
    return _TRIES[pieces]


class Walk:
    """An automaton walked by the tokens of a vocabulary."""

    automaton: Automaton
    trie: Trie
    vocabulary: int
    end: list[int]

    def __init__(self, automaton: Automaton, pieces: Pieces, vocabulary: int, end: tuple[int, ...]):
        self.automaton, self.trie, self.vocabulary, self.end = automaton, trie_of(pieces), vocabulary, list(end)
        self.fewest: Fewest = Fewest(automaton, pieces)
        self.forget()

    def forget(self) -> None:
        """Begin with no place known."""
        self.number: dict[Cells, int] = {}
        self.places: list[Cells] = []
        self.table = np.full((64, 256), UNKNOWN, dtype=np.int32)
        self.least = np.zeros(64, dtype=np.int32)
        self.found: dict[int, np.ndarray] = {}

    def place(self, cells: Cells) -> int:
        """The number of a place; `DEAD` for none."""
        if not cells:
            return DEAD
        if cells not in self.number:
            self.number[cells] = len(self.places)
            self.places.append(cells)
            if len(self.places) > len(self.table):
                self.table = np.concatenate([self.table, np.full_like(self.table, UNKNOWN)])
                self.least = np.concatenate([self.least, np.zeros_like(self.least)])
            self.least[len(self.places) - 1] = self.fewest(cells)
        return self.number[cells]

    def needs(self, cells: Cells) -> np.ndarray:
        """(V,) int16: lower bound on the tokens that a text needs after each token, itself not counted; 0 for the
        end of a text that may end; `NEVER` where the token may not come."""
        if len(self.places) > MOST:
            self.forget()
        at = self.place(self.automaton.coarse(cells))
        if at not in self.found:
            if 2 * self.vocabulary * len(self.found) > BYTES:
                self.found.clear()
            self.found[at] = self._needs(at)
        return self.found[at]

    def _needs(self, at: int) -> np.ndarray:
        out = np.full(self.vocabulary, NEVER, dtype=np.int16)
        if at == DEAD:
            return out
        now = np.array([at], dtype=np.int32)
        for (parent, letter), (node, token) in zip(self.trie.levels, self.trie.tokens, strict=True):
            before = now[parent]
            now = np.full(len(parent), DEAD, dtype=np.int32)
            alive = np.nonzero(before >= 0)[0]
            if not len(alive):
                break
            now[alive] = self._step(before[alive], letter[alive])
            ends = now[node]
            ok = ends >= 0
            out[token[ok]] = np.minimum(self.least[ends[ok]], NEVER - 1)
        if self.automaton.accepts(self.places[at]):
            out[self.end] = 0
        return out

    def _step(self, before: np.ndarray, letter: np.ndarray) -> np.ndarray:
        """Where places go with a byte each."""
        after = self.table[before, letter]
        new = after == UNKNOWN
        if new.any():
            for pair in np.unique(before[new].astype(np.int64) * 256 + letter[new]).tolist():
                place, byte = divmod(pair, 256)
                to = self.place(self.automaton.step(self.places[place], byte, coarse=True))
                self.table[place, byte] = to
            after = self.table[before, letter]
        return after
