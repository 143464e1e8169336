"""Regular expressions, JSON schemas and grammars, recognised by llguidance.

The recogniser is derivatives of regular expressions and an Earley parser over the vocabulary's trie.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.errors import EmptyConstraint, MotesError, UnknownName
from motes.language.constraint import Constraint, Recogniser, constraints, distinct, must_be_text, shorten
from motes.language.constraints.distance import distance
from motes.language.constraints.pieces import pieces
from motes.language.constraints.product import both
from motes.language.constraints.schema.marks import BEGINNING, JSON, Marks, of_grammar, scanned
from motes.language.constraints.schema.walk import NEVER
from motes.language.models.model import LanguageModel

DEAD_END = "NoExtension"
"""How a parser's error begins where no token can follow."""
EXPRESSION = "regular expression"
ANY_SPELLING = '\n%llguidance {"no_forcing": true}'
"""What lets any tokens spell characters that must come; otherwise only the tokenizer's own spelling of them passes."""
EXPLORED = 256
"""Parser states that `needs` looks at before it settles for a lower bound."""


@dataclass(frozen=True)
class Parsed(Constraint):
    """A regular expression, JSON schema or grammar. Made by `regex`, `json_schema` or `grammar`.

    Args:
        what: which of them, for messages.
        source: as the caller wrote it.
        grammar: the same in the recogniser's own language.
        layout: of a JSON schema, the one layout that is meant.
    """

    what: str
    source: str
    grammar: str
    layout: str = ""

    @property
    def kind(self) -> str:
        return f"{self.what} {shorten(self.source)}"

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return Parsers(self, model)

    @property
    def separators(self) -> Marks | None:
        """What ends a part of the texts; None: nothing is known to."""
        if self.what == "grammar":
            return of_grammar(self.source)
        return JSON if self.layout else None

    @property
    def quantity(self) -> str:
        return f"log P(valid, {self.layout} layout)" if self.layout else "log P(valid)"

    def settings(self) -> dict[str, Any]:
        return {"kind": self.what, "source": self.source, **({"layout": self.layout} if self.layout else {})}


@constraints.register
def regex(pattern: str) -> Constraint:
    """Texts that match a regular expression as a whole (Rust syntax: no look-around, no back-references).

    Raises:
        MotesError: the pattern does not parse.
    """
    from llguidance import LLMatcher

    must_be_text("regular expression", pattern)
    written = json.loads(LLMatcher.grammar_from_regex(pattern))["grammars"][0]["lark_grammar"]
    return _checked(EXPRESSION, pattern, LLMatcher.grammar_from_lark(written + ANY_SPELLING))


@dataclass(frozen=True)
class InLayout(Constraint):
    """JSON of one layout in which no key stands twice, which the recogniser of layouts does not see."""

    every: Constraint
    one: Constraint

    @property
    def kind(self) -> str:
        return self.one.kind

    @property
    def quantity(self) -> str:
        return self.one.quantity

    def settings(self) -> dict[str, Any]:
        return self.one.settings()

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return both(self.every, self.one).recogniser(model)


LAYOUTS: dict[str, dict[str, Any]] = {
    "spaced": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
    "compact": {"whitespace_flexible": False},
    "ordered": {"whitespace_flexible": True},
}
"""Layouts that leave out most of what satisfies a schema; llguidance recognises them."""


@constraints.register
def json_schema(schema: dict[str, Any] | bool | str, *, layout: str = "any") -> Constraint:
    """Texts that are JSON and satisfy a schema.

    The default is all of them: any space, any order of the keys, any spelling of a number (1.0 and 1e0 are integers)
    and of a character (\\u0041, \\/). A key may stand in an object once, also where it is no property of the schema; a
    surrogate that stands alone is no character. The formats date, time, date-time, duration, email, hostname, ipv4,
    ipv6, uuid and uri are asked for, others are refused, and so are keywords that are not followed (not, if,
    uniqueItems, contains, dependencies and the unevaluated ones, and a oneOf whose alternatives overlap).

    Args:
        schema: a JSON schema.
        layout: "any", or one layout, of which log P(valid) is then the probability: "spaced" is `{"a": 1, "b": 2}` as
            `json.dumps` writes it, "compact" is `{"a":1,"b":2}`, and "ordered" leaves the space free. In these three
            keys come in the order of the schema, and numbers and characters in their plain spelling.

    Raises:
        EmptyConstraint: nothing satisfies the schema.
        MotesError: the schema is no JSON, is invalid, or uses what the recogniser does not know.
    """
    if layout != "any" and layout not in LAYOUTS:
        raise UnknownName("JSON layout", layout, ["any", *LAYOUTS])
    if isinstance(schema, str):
        must_be_text("JSON schema", schema)
    document, text = _document(schema)
    from motes.language.constraints.schema import JsonSchema

    every = JsonSchema.of(document, text)
    if layout == "any":
        return every
    from llguidance import LLMatcher

    plain = document if isinstance(document, dict) else {}
    written = "start: %json " + json.dumps({**plain, "x-guidance": LAYOUTS[layout]})
    one = _checked("JSON schema", text, LLMatcher.grammar_from_lark(written + ANY_SPELLING), layout)
    return InLayout(every, one) if every.frees_keys else one


def _document(schema: object) -> tuple[Any, str]:
    """A schema as JSON and as text."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        document = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        shown = shorten(schema) if isinstance(schema, str) else type(schema).__name__
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MotesError(f"the schema {shown} is no JSON object: {why}") from error
    if not isinstance(document, (dict, bool)):
        raise MotesError(f"the schema {shorten(text)} is no JSON object: it is of the type {type(document).__name__}")
    return document, text


@constraints.register
def grammar(text: str) -> Constraint:
    """Texts of a context-free grammar in Lark's notation, from the rule `start`.

    Terminals are read greedily: of two that are `/[ab]+/` and stand side by side the first takes all letters, and the
    second finds none, so that no text has both. Write what must part as rules of single characters.

    Raises:
        MotesError: the grammar does not parse.
    """
    from llguidance import LLMatcher

    must_be_text("grammar", text)
    return _checked("grammar", text, LLMatcher.grammar_from_lark(text + ANY_SPELLING))


def _checked(what: str, source: str, grammar: str, layout: str = "") -> Constraint:
    from llguidance import LLMatcher

    broken, messages = LLMatcher.validate_grammar_with_warnings(grammar, None)
    if broken:
        if "Unsatisfiable" in messages[0]:
            raise EmptyConstraint(f"nothing can satisfy the {what} {shorten(source)}: {messages[0].strip()}")
        raise MotesError(f"the {what} {shorten(source)} cannot be read: {messages[0].strip()}")
    return Parsed(what, source, grammar, layout)


class Parsers(Recogniser):
    """The parser states of the distinct prefixes of a run, one a row."""

    model: LanguageModel
    constraint: Parsed

    def __init__(self, constraint: Parsed, model: LanguageModel):
        from llguidance import LLExecutor, LLMatcher

        self.model, self.constraint = model, constraint
        self.executor: LLExecutor = LLExecutor(max(1, torch.get_num_threads()))
        self.start: LLMatcher = LLMatcher(model.recogniser_tokenizer(), constraint.grammar)
        self.matchers = [self.start.deep_copy()]
        self.separators: Marks | None = constraint.separators
        self.scans = [BEGINNING]
        self.far = distance(constraint.source, pieces(model)) if constraint.what == EXPRESSION else None
        self.texts: list[tuple[frozenset[int], int]] = [(frozenset() if self.far is None else self.far.start, 0)]
        self.most: int | None = None
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
        if self.separators is not None:
            spelt, pairs = pieces(self.model).bytes, zip(parent.tolist(), token.tolist(), strict=True)
            kind = self.separators
            self.scans = [scanned(self.scans[p], spelt[v] if v >= 0 else b"", kind) for p, v in pairs]
        if self.far is not None:
            pairs = zip(parent.tolist(), token.tolist(), strict=True)
            self.texts = [self._longer(self.texts[p], v) for p, v in pairs]
        moves = [(m, v) for m, v in zip(rows, token.tolist(), strict=True) if v >= 0]
        if moves:
            self.executor.consume_token_par(moves)
        self.check()

    def _longer(self, text: tuple[frozenset[int], int], token: int) -> tuple[frozenset[int], int]:
        """Where a text stands in the automaton of distances with a token behind it, and its length."""
        if token < 0 or self.far is None:
            return text
        return self.far.step(text[0], pieces(self.model).bytes[token]), text[1] + 1

    def within(self, max_tokens: int) -> None:
        self.most = max_tokens

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        self.matchers = [self.start.deep_copy() for _ in range(rows)]
        for row, tokens in texts.items():
            self.matchers[row].consume_tokens(tokens)
        if self.separators is not None:
            spelt, kind = pieces(self.model), self.separators
            self.scans = [scanned(BEGINNING, spelt.write(texts.get(row, [])), kind) for row in range(rows)]
        if self.far is not None:
            begun = (self.far.start, 0)
            self.texts = [reduce(self._longer, texts.get(row, []), begun) for row in range(rows)]
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
        if self.far is not None and self.most is not None:
            for row, (states, length) in enumerate(self.texts):
                left = self.most - length
                if left <= self.far.largest:
                    mask[row] &= torch.from_numpy(self._fits(states, left))
        return mask

    def _fits(self, states: frozenset[int], left: int) -> np.ndarray:
        """(V,) bool: the tokens behind which a text can end with `left` tokens in all."""
        assert self.far is not None
        out = self.far.needs(states) < left
        out[list(self.model.end)] = True  # the mask says whether the text may end
        return out

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

    def marks(self) -> Tensor | None:
        return None if self.separators is None else torch.tensor([scan.marks for scan in self.scans])

    def needs(self) -> int:
        """Exact where few texts are shorter than the shortest one that satisfies; otherwise a lower bound."""
        if self.far is not None:
            return int(self.far.least[0]) if self.far.least[0] < NEVER else 0
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
