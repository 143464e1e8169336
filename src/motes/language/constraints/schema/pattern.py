"""Regular expressions of JSON schemas, as automata over characters that know how far it is to their end."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property

from motes.errors import MotesError
from motes.language.constraints.schema.ranges import Ranges, inside

MOST = 20_000
"""States of one pattern: each repetition that is counted out costs as many as it has turns."""


@dataclass(eq=False)
class Pattern:
    """A regular expression as a nondeterministic automaton; a text passes if it is found anywhere in it.

    Its states are numbers; a set of them, a frozenset, is where a text stands.

    Attributes:
        source: the expression.
        chars: for each state, the edges that read a character: its ranges and the state behind.
        free: for each state, the states that are reached without one.
        begin, end: the same, for edges that are open at the beginning of the text only (`^`) and at its end (`$`).
        first, last: the state in which a text begins, and the one in which it has passed.
    """

    source: str
    chars: list[list[tuple[Ranges, int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)
    begin: list[list[int]] = field(default_factory=list)
    end: list[list[int]] = field(default_factory=list)
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        self.known: dict[tuple[frozenset[int], int], frozenset[int]] = {}

    def state(self) -> int:
        """A new state."""
        if len(self.chars) >= MOST:
            raise MotesError(f"the pattern {self.source[:80]!r} is too large: more than {MOST} states")
        for edges in (self.chars, self.free, self.begin, self.end):
            edges.append([])
        return len(self.chars) - 1

    def closure(self, states: list[int], beginning: bool = False, ending: bool = False) -> set[int]:
        """The states that are reached without a character."""
        seen, todo = set(states), list(states)
        while todo:
            at = todo.pop()
            ways = [*self.free[at], *(self.begin[at] if beginning else ()), *(self.end[at] if ending else ())]
            new = [s for s in ways if s not in seen]
            seen.update(new)
            todo += new
        return seen

    def finish(self) -> Pattern:
        """The distances to the end, once all edges are there."""
        back: list[list[int]] = [[] for _ in self.chars]
        unread: list[list[int]] = [[] for _ in self.chars]
        closing: list[list[int]] = [[] for _ in self.chars]
        for s in range(len(self.chars)):
            for _, to in self.chars[s]:
                back[to].append(s)
            for to in self.free[s]:
                unread[to].append(s)
            for to in self.end[s]:
                closing[to].append(s)
        self.far: list[float] = [math.inf] * len(self.chars)
        self.far[self.last] = 0.0
        todo = deque([self.last])
        while todo:  # the states from which the end is reached without a character
            s = todo.popleft()
            new = {before for before in (*unread[s], *closing[s]) if self.far[before] > 0}
            for before in new:
                self.far[before] = 0.0
            todo.extend(new)
        todo = deque(s for s, far in enumerate(self.far) if far == 0)
        while todo:  # edges without a character first
            s = todo.popleft()
            for before in unread[s]:
                if self.far[before] > self.far[s]:
                    self.far[before] = self.far[s]
                    todo.appendleft(before)
            for before in back[s]:
                if self.far[before] > self.far[s] + 1:
                    self.far[before] = self.far[s] + 1
                    todo.append(before)
        self.initial: frozenset[int] = self._alive(self.closure([self.first], beginning=True))
        self.empty: bool = self.last in self.closure([self.first], beginning=True, ending=True)
        return self

    def _alive(self, states: set[int]) -> frozenset[int]:
        return frozenset(s for s in states if self.far[s] < math.inf)

    def step(self, states: frozenset[int], char: int) -> frozenset[int]:
        """Where a text stands with one more character, a code point; empty where nothing can come of it."""
        key = (states, char if char < 128 else self._alike(char))
        if key not in self.known:
            if len(self.known) > 100_000:
                self.known.clear()
            moved = [to for s in states for ranges, to in self.chars[s] if inside(ranges, char)]
            self.known[key] = self._alive(self.closure(moved))
        return self.known[key]

    @cached_property
    def cuts(self) -> list[int]:
        """Where a range of some edge begins, or lies behind its end: between two of these all characters are alike."""
        return sorted({p for edges in self.chars for ranges, _ in edges for a, b in ranges for p in (a, b + 1)})

    def _alike(self, char: int) -> int:
        """A number that characters share which no edge tells apart."""
        return -1 - bisect_right(self.cuts, char)

    def passes(self, states: frozenset[int], length: int) -> bool:
        """Whether a text of `length` characters that stands there passes."""
        return self.empty if not length else self.last in self.closure(list(states), ending=True)

    def left(self, states: frozenset[int]) -> float:
        """The fewest characters that make the text pass."""
        return min((self.far[s] for s in states), default=math.inf)

    def matches(self, text: str) -> bool:
        """Whether a whole text passes."""
        states = self.initial
        for char in text:
            states = self.step(states, ord(char))
        return self.passes(states, len(text))
