"""Strings of bytes covered by tokens: which tokens can follow, and what probability a string has as a beginning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from motes.language.constraints.pieces import Pieces

Floats = NDArray[np.float64]


class Spelling:
    """What the tokens of a vocabulary write, as symbols: the 256 bytes, then one for each token that writes nothing.

    Tokens are sorted by what they write, so that those which go on from a string stand side by side.

    Attributes:
        silent: the tokens that write no bytes, those that end a text first; `silent[j]` writes the symbol 256 + j.
        order: (V,) the tokens, sorted.
        symbol: (L + 1, V) the symbols of the sorted tokens by place, -1 behind the end of what they write.
        count: how many symbols there are.
    """

    def __init__(self, known: Pieces, end: Sequence[int]):
        others = [v for v, piece in enumerate(known.bytes) if not piece and v not in end]
        self.silent: list[int] = [*end, *others]
        place = {v: 256 + j for j, v in enumerate(self.silent)}
        written = [tuple(piece) or (place[v],) for v, piece in enumerate(known.bytes)]
        by_string = sorted(range(len(written)), key=written.__getitem__)
        self.order: NDArray[np.int64] = np.array(by_string)
        self.count: int = 256 + len(self.silent)
        self.symbol: NDArray[np.int16] = np.full((max(1, known.longest) + 1, len(written)), -1, dtype=np.int16)
        for at, v in enumerate(by_string):
            self.symbol[: len(written[v]), at] = written[v]
        self.known = known

    def symbols(self, tokens: Sequence[int]) -> list[int]:
        """What some tokens write."""
        place = {v: 256 + j for j, v in enumerate(self.silent)}
        return [s for v in tokens for s in (self.known.bytes[v] or (place[v],))]

    def tokens(self, symbols: Sequence[int]) -> list[int]:
        """The tokenizer's tokens for some symbols."""
        out: list[int] = []
        waiting = bytearray()
        for s in [*symbols, 256]:
            if s < 256:
                waiting.append(s)
                continue
            if waiting:
                out += self.known.encode(bytes(waiting))
                waiting.clear()
            out.append(self.silent[s - 256])
        return out[:-1]


class CoverRow:
    """Where a token sequence stands among the rows of the model that evaluates it; it moves as those do."""

    def __init__(self, at: int):
        self.at = at


@dataclass(frozen=True, eq=False)
class Branch:
    """Tokens that write the first symbols of a string, and the next tokens that write the rest of it and go beyond.

    Attributes:
        row: the token sequence.
        log_prob: its log-probability.
        depth: how many symbols of the string its next token must write first.
        first: of the sorted tokens, where those that do begin.
        law: (n,) the probabilities of these tokens.
    """

    row: CoverRow
    log_prob: float
    depth: int
    first: int
    law: Floats

    @property
    def log_mass(self) -> float:
        mass = float(self.law.sum())
        return self.log_prob + math.log(mass) if mass > 0 else -math.inf


@dataclass(frozen=True, eq=False)
class Child:
    """A token sequence that writes a string exactly and is not evaluated yet: a branch with one token more."""

    branch: Branch
    token: int
    log_mass: float


@dataclass(frozen=True, eq=False)
class Cover:
    """All the ways in which tokens cover a string of symbols, except those that were pruned.

    Attributes:
        branches: the ways; no two share a text, so their masses add up.
        log_prob: the log of their mass, nats: log P(the text begins with the string) if none was pruned.
        log_lost: the log of a bound on what pruning took from that probability: the sum of the masses that were pruned
            from this string and the beginnings of it, when they were.
        log_kept: the log of the product of the shares that pruning kept. If the pruned ways would have gone on as well
            as the others, this would be `log_prob` minus the exact log-probability.
    """

    branches: tuple[Branch, ...]
    log_prob: float = 0.0
    log_lost: float = -math.inf
    log_kept: float = 0.0

    def next_log_mass(self, spelling: Spelling) -> Floats:
        """(S,) log P(the string and then the symbol), each; the logarithm of their sum is `log_prob`."""
        most = max((b.log_prob for b in self.branches), default=0.0)
        total = np.zeros(spelling.count)
        for b in self.branches:
            symbol = spelling.symbol[b.depth, b.first : b.first + len(b.law)]
            total += math.exp(b.log_prob - most) * np.bincount(symbol, weights=b.law, minlength=spelling.count)
        with np.errstate(divide="ignore"):
            return np.log(total) + most


def step(spelling: Spelling, cover: Cover, symbol: int, beam: int | None) -> tuple[Cover, list[Child]]:
    """The cover of a string with one more symbol, without the children to be evaluated, and these.

    A minimal cover of a string is a token sequence whose concatenation begins with it and without its last token would
    be too short for that. Those of the longer string are the old ones whose last token goes on with the symbol, and
    what begins with a child: a sequence that ended where the symbol now ends.
    """
    going: list[Branch] = []
    children: list[Child] = []
    for b in cover.branches:
        column = spelling.symbol[b.depth, b.first : b.first + len(b.law)]
        low, high = (int(np.searchsorted(column, symbol, side)) for side in ("left", "right"))
        if low == high:
            continue
        deeper = spelling.symbol[b.depth + 1, b.first + low : b.first + high]
        exact = low + int(np.searchsorted(deeper, -1, "right"))
        for at in range(low, exact):
            if b.law[at] > 0:
                token = int(spelling.order[b.first + at])
                children.append(Child(b, token, b.log_prob + math.log(float(b.law[at]))))
        rest = replace(b, depth=b.depth + 1, first=b.first + exact, law=b.law[exact:high].copy())
        if rest.log_mass > -math.inf:
            going.append(rest)
    both = [*going, *children]
    mass = np.array([x.log_mass for x in both])
    total = log_sum(mass)
    if beam is None or len(both) <= beam:
        return replace(cover, branches=tuple(going), log_prob=total), children
    rank = np.argsort(-mass, kind="stable")
    if beam > 1 and children and (rank[:beam] < len(going)).all():
        # the heaviest child takes the last place: only what ends here has a next token for every symbol
        best = len(going) + int(mass[len(going) :].argmax())
        rank = np.array([*rank[: beam - 1], best, *(i for i in rank[beam - 1 :] if i != best)])
    kept, dropped = set(rank[:beam].tolist()), rank[beam:]
    left = log_sum(mass[rank[:beam]])
    pruned = Cover(
        tuple(b for i, b in enumerate(going) if i in kept),
        left,
        log_sum(np.array([cover.log_lost, *mass[dropped]])),
        cover.log_kept + left - total,
    )
    return pruned, [c for i, c in enumerate(children, len(going)) if i in kept]


def log_sum(x: Floats) -> float:
    """log sum exp, -inf of nothing."""
    most = float(x.max(initial=-np.inf))
    return most if most == -np.inf else most + math.log(float(np.exp(x - most).sum()))
