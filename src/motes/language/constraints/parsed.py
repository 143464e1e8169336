"""Regular expressions, JSON schemas and grammars, recognised by llguidance.

The recogniser is derivatives of regular expressions and an Earley parser over the vocabulary's trie.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.core.errors import EmptyConstraint, MotesError, UnknownName
from motes.language.constraint import Constraint, Recogniser, distinct, shorten
from motes.language.constraints.pieces import pieces
from motes.language.model import LanguageModel

DEAD_END = "NoExtension"
"""How a parser's error begins where no token can follow."""
EXPLORED = 256
"""Parser states that `needs` looks at before it settles for a lower bound."""


@dataclass(frozen=True)
class Parsed(Constraint):
    """A regular expression, JSON schema or grammar. Made by `regex`, `json_schema` or `grammar`.

    Args:
        what: which of them, for messages.
        source: as the caller wrote it.
        grammar: the same in the recogniser's own language.
    """

    what: str
    source: str
    grammar: str

    @property
    def kind(self) -> str:
        return f"{self.what} {shorten(self.source)}"

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return Parsers(self, model)

    def settings(self) -> dict[str, Any]:
        return {"kind": self.what, "source": self.source}


def regex(pattern: str) -> Constraint:
    """Texts that match a regular expression as a whole (Rust syntax: no look-around, no back-references).

    Raises:
        MotesError: the pattern does not parse.
    """
    from llguidance import LLMatcher

    if not isinstance(pattern, str):
        raise MotesError(f"a regular expression must be a string, not {type(pattern).__name__}")
    return _checked("regular expression", pattern, LLMatcher.grammar_from_regex(pattern))


LAYOUTS: dict[str, dict[str, Any]] = {
    "spaced": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
    "compact": {"whitespace_flexible": False},
    "free": {"whitespace_flexible": True},
}


def json_schema(schema: dict[str, Any] | str, *, layout: str = "spaced") -> Constraint:
    """Texts that are JSON and satisfy a schema.

    Args:
        schema: a JSON schema.
        layout: "spaced" is `{"a": 1, "b": 2}` as `json.dumps` writes it; "compact" is `{"a":1,"b":2}`; "free" allows
            any whitespace between the parts, on which a model may spend its tokens.

    Raises:
        MotesError: the schema is no JSON, is invalid, or uses what the recogniser does not know.
    """
    from llguidance import LLMatcher

    if layout not in LAYOUTS:
        raise UnknownName("JSON layout", layout, LAYOUTS)
    text = schema if isinstance(schema, str) else json.dumps(schema)
    try:
        grammar = LLMatcher.grammar_from_json_schema(text, overrides=LAYOUTS[layout])  # pyright: ignore
    except ValueError as error:
        raise MotesError(f"the schema {shorten(text)} is no JSON object: {error}") from error
    return _checked("JSON schema", text, grammar)


def grammar(text: str) -> Constraint:
    """Texts of a context-free grammar in Lark's notation, from the rule `start`.

    Raises:
        MotesError: the grammar does not parse.
    """
    from llguidance import LLMatcher

    return _checked("grammar", text, LLMatcher.grammar_from_lark(text))


def _checked(what: str, source: str, grammar: str) -> Constraint:
    from llguidance import LLMatcher

    broken, messages = LLMatcher.validate_grammar_with_warnings(grammar, None)
    if broken:
        if "Unsatisfiable" in messages[0]:
            raise EmptyConstraint(f"nothing can satisfy the {what} {shorten(source)}: {messages[0].strip()}")
        raise MotesError(f"the {what} {shorten(source)} cannot be read: {messages[0].strip()}")
    return Parsed(what, source, grammar)


class Parsers(Recogniser):
    """The parser states of the distinct prefixes of a run, one a row."""

    def __init__(self, constraint: Parsed, model: LanguageModel):
        from llguidance import LLExecutor, LLMatcher

        self.model, self.constraint = model, constraint
        self.executor = LLExecutor(max(1, torch.get_num_threads()))
        self.start = LLMatcher(model.recogniser_tokenizer(), constraint.grammar)
        self.matchers = [self.start.deep_copy()]
        self.check()

    def check(self) -> None:
        """The parser gave up nowhere, or an error says why."""
        for row, matcher in enumerate(self.matchers):
            if matcher.is_error() and not matcher.get_error().startswith(DEAD_END):
                raise MotesError(
                    f"the recogniser of the {self.constraint.kind} failed in prefix {row}: {matcher.get_error()[:500]}"
                )

    def extend(self, parent: Tensor, token: Tensor) -> None:
        rows: list[Any] = []
        used: set[int] = set()
        for p in parent.tolist():  # every row but the first of a family is a copy, made before any of them moves on
            rows.append(self.matchers[p].deep_copy() if p in used else self.matchers[p])
            used.add(p)
        self.matchers = rows
        moves = [(m, v) for m, v in zip(rows, token.tolist(), strict=True) if v >= 0]
        if moves:
            self.executor.consume_token_par(moves)
        self.check()

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        self.matchers = [self.start.deep_copy() for _ in range(rows)]
        for row, tokens in texts.items():
            self.matchers[row].consume_tokens(tokens)
        self.check()

    def accepts(self, row: Tensor, token: Tensor) -> Tensor:
        pairs, which = distinct(row, token)
        found = []
        for p, v in pairs:
            matcher = self.matchers[p].deep_copy()
            found.append(matcher.consume_token(v) and matcher.is_accepting())
        return torch.tensor(found, dtype=torch.bool)[which]

    def allowed(self) -> Tensor:
        mask = self._masks(self.matchers)
        self.check()
        return mask

    def _masks(self, matchers: list[Any]) -> Tensor:
        """(len(matchers), V) bool."""
        words = torch.zeros(len(matchers), (self.model.vocabulary + 31) // 32, dtype=torch.int32)
        jobs = [(matcher, row) for row, matcher in enumerate(matchers)]
        self.executor.unsafe_compute_mask_ptr(jobs, words.data_ptr(), 4 * words.shape[1], len(jobs))
        bits = torch.from_numpy(np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little"))
        mask = bits[:, : self.model.vocabulary].bool()
        # A parser that is stuck asks for the end of the text; only one that accepts may have it.
        stuck = torch.tensor([not matcher.is_accepting() for matcher in matchers])
        end = torch.tensor(self.model.end)
        mask[:, end] &= ~stuck[:, None]
        dead = torch.tensor([matcher.is_error() for matcher in matchers])
        mask[dead] = False
        return mask

    def needs(self) -> int:
        """Exact where few texts are shorter than the shortest one that satisfies; otherwise a lower bound."""
        bytes_of = pieces(self.model).bytes
        level, tokens, seen, explored = {b"": self.start}, 0, {b""}, 0
        while level:
            if any(matcher.is_accepting() for matcher in level.values()):
                return tokens
            following: dict[bytes, Any] = {}
            masks = self._masks([m.deep_copy() for m in level.values()])
            for (spelt, matcher), mask in zip(level.items(), masks, strict=True):
                for v in torch.nonzero(mask)[:, 0].tolist():
                    text = spelt + bytes_of[v]
                    if text in seen:  # other tokens for a text that fewer or as many have spelled
                        continue
                    explored += 1
                    if explored > EXPLORED:
                        return tokens + 1
                    seen.add(text)
                    following[text] = matcher.deep_copy()
                    following[text].consume_token(v)
            level, tokens = following, tokens + 1
        return tokens
