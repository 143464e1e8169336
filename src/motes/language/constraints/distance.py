"""The fewest tokens that a text under a regular expression still needs.

The recogniser of expressions tells which tokens may come next and not how far it is to the end. An automaton that
passes no fewer texts, `widened`, stands wherever the recogniser does, so that its distance is a lower bound.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from motes.language.constraints.pieces import Pieces
from motes.language.constraints.schema.expression import widened
from motes.language.constraints.schema.pattern import Pattern
from motes.language.constraints.schema.walk import DEAD, NEVER, UNKNOWN, trie_of

MOST = 400
"""Places of an automaton; a larger one has no bound."""
States = frozenset[int]


class Distance:
    """The bound for each place of an automaton, and for each token that may come there.

    Attributes:
        least: (places + 1,) int16, the fewest tokens to the end from each place; `NEVER` for none, and at the last.
        after: for each place, the place behind each token, (V,) int16; `DEAD` where there is none.
    """

    pattern: Pattern
    vocabulary: int

    def __init__(self, pattern: Pattern, pieces: Pieces):
        self.pattern, self.trie, self.vocabulary = pattern, trie_of(pieces), len(pieces.bytes)
        self.start: frozenset[int] = pattern.initial
        self.number: dict[States, int] = {self.start: 0}
        self.places: list[frozenset[int]] = [self.start]
        self.table = np.full((MOST + 1, 256), UNKNOWN, dtype=np.int32)
        self.after: list[np.ndarray] = []
        while len(self.after) < len(self.places) <= MOST:
            self.after.append(self._walked(len(self.after)))
        self.known: bool = len(self.places) <= MOST
        self.least = self._distances() if self.known else np.zeros(0, dtype=np.int16)

    def step(self, states: States, text: bytes) -> States:
        """Where a text stands with more bytes; those within a character change nothing."""
        for byte in text:
            if byte < 128 or byte >= 192:
                states = self.pattern.step(states, min(byte, 128))
        return states

    def needs(self, states: States) -> np.ndarray:
        """(V,) int16: the fewest tokens behind each token; `NEVER` where none ends."""
        if states not in self.number:
            return np.zeros(self.vocabulary, dtype=np.int16)
        return self.least[self.after[self.number[states]]]

    @property
    def largest(self) -> int:
        """The most that any place from which the end can be reached needs."""
        return int(self.least[self.least < NEVER].max(initial=0))

    def _place(self, place: int, byte: int) -> int:
        states = self.step(self.places[place], bytes([byte]))
        if not states:
            return DEAD
        if states not in self.number:
            if len(self.places) > MOST:
                return DEAD
            self.number[states] = len(self.places)
            self.places.append(states)
        return self.number[states]

    def _walked(self, place: int) -> np.ndarray:
        """(V,) the place behind each token."""
        out = np.full(self.vocabulary, DEAD, dtype=np.int16)
        now = np.array([place], dtype=np.int32)
        for (parent, letter), (node, token) in zip(self.trie.levels, self.trie.tokens, strict=True):
            before = now[parent]
            now = np.full(len(parent), DEAD, dtype=np.int32)
            alive = np.nonzero((before >= 0) & (before <= MOST))[0]
            if not len(alive):
                break
            pairs = before[alive].astype(np.int64) * 256 + letter[alive]
            for pair in np.unique(pairs[self.table.ravel()[pairs] == UNKNOWN]).tolist():
                self.table[pair // 256, pair % 256] = self._place(*divmod(pair, 256))
            now[alive] = self.table.ravel()[pairs]
            out[token] = now[node]
        return out

    def _distances(self) -> np.ndarray:
        least = np.full(len(self.places) + 1, NEVER, dtype=np.int16)
        back: list[list[int]] = [[] for _ in self.places]
        for place, after in enumerate(self.after):
            for to in np.unique(after[after >= 0]).tolist():
                back[to].append(place)
        ends = self.pattern.last
        level = [i for i, s in enumerate(self.places) if ends in self.pattern.closure(list(s), ending=True)]
        least[level], far = 0, 0
        while level and far < NEVER - 1:
            far += 1
            level = [i for i in dict.fromkeys(b for to in level for b in back[to]) if least[i] == NEVER]
            least[level] = far
        return least


_KNOWN: WeakKeyDictionary[Pieces, dict[str, Distance | None]] = WeakKeyDictionary()


def distance(source: str, pieces: Pieces) -> Distance | None:
    """The bound of an expression for a vocabulary; None: it is not plain, or too large."""
    known = _KNOWN.setdefault(pieces, {})
    if source not in known:
        pattern = widened(source)
        found = None if pattern is None else Distance(pattern, pieces)
        known[source] = found if found is not None and found.known else None
    return known[source]
