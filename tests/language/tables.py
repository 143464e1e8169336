"""A three-token language model whose every text can be counted, and its exact laws."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from motes.testing.rules import TABLE
from motes.testing.rules import three_tokens as table

__all__ = ["TABLE", "exact", "spell", "table", "texts"]


def texts(max_tokens: int) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    """Every text (up to its end token, or cut) with the probabilities of its tokens."""

    def grow(text: tuple[int, ...], p: list[float]) -> Iterator[tuple[tuple[int, ...], list[float]]]:
        if len(text) == max_tokens or (text and text[-1] == 2):
            yield text, p
            return
        row = TABLE[text[-1] if text else -1].exp().tolist()
        for v in range(3):
            yield from grow((*text, v), [*p, row[v]])

    yield from grow((), [])


def spell(text: tuple[int, ...]) -> str:
    return "".join("ab"[v] for v in text if v < 2)


def exact(
    max_tokens: int, pattern: str | None = None, reward: Callable[[str], float] | None = None, power: float = 1.0
) -> dict[tuple[int, ...], float]:
    """The unnormalised target law: p(text)^power, where the pattern matches, times exp(reward)."""
    out = {}
    for text, p in texts(max_tokens):
        if pattern is None or re.fullmatch(pattern, spell(text)):
            tilt = 1.0 if reward is None else math.exp(reward(spell(text)))
            out[text] = math.prod(q**power for q in p) * tilt
    return out
