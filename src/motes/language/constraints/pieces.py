"""The bytes of a model's tokens, and which tokens are not text."""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from motes.language.models.model import LanguageModel


@dataclass(frozen=True, eq=False)
class Pieces:
    """A vocabulary as bytes.

    Args:
        bytes: what each token writes; b"" for the end of a text and other control tokens, which write nothing.
        tokenizer: llguidance's, for encoding.
        end: the tokens that end a text.
    """

    bytes: list[bytes]
    tokenizer: Any
    end: frozenset[int]

    @cached_property
    def tokens_of(self) -> dict[bytes, list[int]]:
        """The tokens that write exactly these bytes (a vocabulary may have several)."""
        out: dict[bytes, list[int]] = {}
        for v, piece in enumerate(self.bytes):
            if piece:
                out.setdefault(piece, []).append(v)
        return out

    @cached_property
    def sorted(self) -> list[bytes]:
        return sorted(self.tokens_of)

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.tokens_of), default=0)

    def beginning_with(self, text: bytes) -> list[bytes]:
        """The pieces that begin with `text` and are longer."""
        at = bisect_left(self.sorted, text)
        out = []
        while at < len(self.sorted) and self.sorted[at].startswith(text):
            if len(self.sorted[at]) > len(text):
                out.append(self.sorted[at])
            at += 1
        return out

    def fewest(self, text: bytes, more: bool = False) -> list[float]:
        """For each place of a text, the fewest tokens that spell the rest (with `more`, or go beyond); inf: none do."""
        out = [float("inf")] * len(text) + [0.0]
        for at in range(len(text) - 1, -1, -1):
            ends = range(at + 1, min(len(text), at + self.longest) + 1)
            least = min((out[e] for e in ends if text[at:e] in self.tokens_of), default=float("inf"))
            out[at] = 1 + (0 if more and self.beginning_with(text[at:]) else least)
        return out

    def write(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.bytes[v] for v in tokens)

    def encode(self, text: bytes) -> list[int]:
        """The tokens that the tokenizer gives for a text alone."""
        return self.tokenizer.tokenize_bytes(text)


_KNOWN: WeakKeyDictionary[LanguageModel, Pieces] = WeakKeyDictionary()


def pieces(model: LanguageModel) -> Pieces:
    """The bytes of each token of a model.

    Raises:
        MotesError: the vocabulary has no bytes (it is neither byte-level nor with byte fallback).
    """
    if model not in _KNOWN:
        tokenizer = model.recogniser_tokenizer()
        silent = {v for v in range(model.vocabulary) if tokenizer.is_special_token(v)} | set(model.end)
        spelt = [b"" if v in silent else bytes(tokenizer.decode_bytes([v])) for v in range(model.vocabulary)]
        _KNOWN[model] = Pieces(spelt, tokenizer, frozenset(model.end))
    return _KNOWN[model]


def whole(text: bytes) -> tuple[str, bool, bool]:
    """The text as far as its characters are whole, whether some bytes of a last one wait, and whether it is valid."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        out = decoder.decode(text)
    except UnicodeDecodeError:
        return text.decode("utf-8", errors="replace"), False, False
    return out, bool(decoder.getstate()[0]), True
