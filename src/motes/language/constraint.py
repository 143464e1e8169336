"""What a text must satisfy: a regular expression, a JSON schema or a grammar, recognised token by token.

The recogniser is llguidance (derivatives of regular expressions and an Earley parser over the vocabulary's trie). Its
states belong to the distinct prefixes of a run, not to the particles: copies share one until they diverge.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.core.errors import EmptyConstraint, MotesError, UnknownName
from motes.language.model import LanguageModel

DEAD_END = "NoExtension"
"""How a parser's error begins where no token can follow."""


@dataclass(frozen=True)
class Constraint:
    """A set of texts. Made by `regex`, `json_schema` or `grammar`; it is tied to a model's tokens by `open`."""

    kind: str
    source: str
    grammar: str
    """The same in the recogniser's own language."""

    def open(self, model: LanguageModel) -> Recogniser:
        """A recogniser at the beginning of a text.

        Raises:
            EmptyConstraint: no text that the model's tokens can spell begins to satisfy it.
            MotesError: the recogniser cannot handle it with this vocabulary.
        """
        recogniser = Recogniser(self, model)
        if not recogniser.allowed().any():
            raise EmptyConstraint(
                f"nothing can satisfy the {self.kind} {shorten(self.source)}: "
                f"no token of {model.name} can begin such a text, and the empty text is none"
            )
        return recogniser

    def settings(self) -> dict[str, Any]:
        """The constraint as JSON."""
        return {"kind": self.kind, "source": self.source}


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


def shorten(text: str, most: int = 120) -> str:
    return repr(text if len(text) <= most else text[:most] + "...")


def _checked(kind: str, source: str, grammar: str) -> Constraint:
    from llguidance import LLMatcher

    broken, messages = LLMatcher.validate_grammar_with_warnings(grammar, None)
    if broken:
        if "Unsatisfiable" in messages[0]:
            raise EmptyConstraint(f"nothing can satisfy the {kind} {shorten(source)}: {messages[0].strip()}")
        raise MotesError(f"the {kind} {shorten(source)} cannot be read: {messages[0].strip()}")
    return Constraint(kind, source, grammar)


class Recogniser:
    """The parser states of the distinct prefixes of a run, one a row."""

    def __init__(self, constraint: Constraint, model: LanguageModel):
        from llguidance import LLExecutor, LLMatcher

        self.model, self.constraint = model, constraint
        self.executor = LLExecutor(max(1, torch.get_num_threads()))
        self.matchers = [LLMatcher(model.recogniser_tokenizer(), constraint.grammar)]
        self.check()

    def check(self) -> None:
        """The parser gave up nowhere, or an error says why."""
        for row, matcher in enumerate(self.matchers):
            if matcher.is_error() and not matcher.get_error().startswith(DEAD_END):
                raise MotesError(
                    f"the recogniser of the {self.constraint.kind} {shorten(self.constraint.source)} failed in prefix "
                    f"{row}: {matcher.get_error()[:500]}"
                )

    def extend(self, parent: Tensor, token: Tensor) -> None:
        """Let row i become the old row `parent[i]` with `token[i]` behind it, (A',) int64 each."""
        rows: list[Any] = []
        used: set[int] = set()
        for p in parent.tolist():  # every row but the first of a family is a copy, made before any of them moves on
            rows.append(self.matchers[p].deep_copy() if p in used else self.matchers[p])
            used.add(p)
        self.matchers = rows
        self.executor.consume_token_par(list(zip(rows, token.tolist(), strict=True)))
        self.check()

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        """Begin again with the text `texts[i]` in row i of `rows`; the other rows stand at the beginning."""
        start = self.matchers[0]
        self.matchers = [start.deep_copy() for _ in range(rows)]
        for row, tokens in texts.items():
            self.matchers[row].consume_tokens(tokens)
        self.check()

    def accepts(self, parent: Tensor, token: Tensor) -> Tensor:
        """(M,) bool: whether the text of row `parent[i]` with `token[i]` behind it satisfies the constraint."""
        memo: dict[tuple[int, int], bool] = {}
        pairs = list(zip(parent.tolist(), token.tolist(), strict=True))
        for p, v in pairs:
            if (p, v) not in memo:
                matcher = self.matchers[p].deep_copy()
                memo[p, v] = matcher.consume_token(v) and matcher.is_accepting()
        return torch.tensor([memo[pair] for pair in pairs], dtype=torch.bool)

    def allowed(self) -> Tensor:
        """(A, V) bool: the tokens that can come next in some text that satisfies the constraint."""
        words = torch.zeros(len(self.matchers), (self.model.vocabulary + 31) // 32, dtype=torch.int32)
        jobs = [(matcher, row) for row, matcher in enumerate(self.matchers)]
        self.executor.unsafe_compute_mask_ptr(jobs, words.data_ptr(), 4 * words.shape[1], len(jobs))
        bits = torch.from_numpy(np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little"))
        mask = bits[:, : self.model.vocabulary].bool()
        # A parser that is stuck asks for the end of the text; only one that accepts may have it.
        stuck = torch.tensor([not matcher.is_accepting() for matcher in self.matchers])
        end = torch.tensor(self.model.end)
        mask[:, end] &= ~stuck[:, None]
        dead = torch.tensor([matcher.is_error() for matcher in self.matchers])
        mask[dead] = False
        self.check()
        return mask
