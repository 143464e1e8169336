"""Texts that are JSON and satisfy a schema, in any layout, as a constraint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from motes.language.constraint import Constraint, Recogniser, distinct, shorten
from motes.language.constraints.pieces import Pieces, pieces
from motes.language.constraints.schema.automaton import Automaton, Cells
from motes.language.constraints.schema.book import opened
from motes.language.constraints.schema.marks import BEGINNING, Scan, scanned
from motes.language.constraints.schema.shapes import Object, everything
from motes.language.constraints.schema.smallest import smallest
from motes.language.constraints.schema.walk import NEVER, Walk
from motes.language.models.model import LanguageModel


@dataclass(frozen=True, eq=False)
class JsonSchema(Constraint):
    """JSON that satisfies a schema, in any layout. Made by `json_schema`."""

    document: Any
    source: str
    automaton: Automaton = field(repr=False)
    walks: WeakKeyDictionary[LanguageModel, Walk] = field(default_factory=WeakKeyDictionary, repr=False)

    @classmethod
    def of(cls, document: Any, source: str) -> JsonSchema:
        """The constraint of a schema.

        Raises:
            EmptyConstraint: no value satisfies it.
            MotesError: it is no schema, or uses what cannot be followed.
        """
        return cls(document, source, Automaton(opened(document)))

    @property
    def kind(self) -> str:
        return f"JSON schema {shorten(self.source)}"

    def settings(self) -> dict[str, Any]:
        return {"kind": "JSON schema", "source": self.source, "layout": "any"}

    @property
    def frees_keys(self) -> bool:
        """Whether some object in it may have keys that no schema names."""
        return any(
            isinstance(shape, Object) and shape.free for shape in everything(self.automaton.book.root, keys=False)
        )

    def sketch(self, model: LanguageModel) -> list[int] | None:
        text = smallest(self.automaton)
        return None if text is None else pieces(model).encode(text.encode())

    def recogniser(self, model: LanguageModel) -> Recogniser:
        if model not in self.walks:
            self.walks[model] = Walk(self.automaton, pieces(model), model.vocabulary, model.end)
        return Places(self.automaton, self.walks[model], pieces(model))


@dataclass(frozen=True)
class SchemaRow:
    """Where one text stands: its cells, how many tokens it has, and its structural marks."""

    cells: Cells
    length: int = 0
    scan: Scan = BEGINNING


class Places(Recogniser):
    """The places of the distinct prefixes of a run, one a row."""

    automaton: Automaton
    walk: Walk
    spelt: Pieces

    def __init__(self, automaton: Automaton, walk: Walk, spelt: Pieces):
        self.automaton, self.walk, self.spelt = automaton, walk, spelt
        self.rows = [SchemaRow(automaton.start)]
        self.most: int | None = None

    def moved(self, row: SchemaRow, token: int) -> SchemaRow:
        """A row with a token behind it."""
        text, cells = self.spelt.bytes[token], row.cells
        for byte in text:
            cells = self.automaton.step(cells, byte)
        return SchemaRow(cells if text else frozenset(), row.length + 1, scanned(row.scan, text))

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = zip(parent.tolist(), token.tolist(), strict=True)
        self.rows = [self.moved(self.rows[p], v) if v >= 0 else self.rows[p] for p, v in pairs]

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        self.rows: list[SchemaRow] = [SchemaRow(self.automaton.start)] * rows
        for at, tokens in texts.items():
            for token in tokens:
                self.rows[at] = self.moved(self.rows[at], token)

    def accepts(self, row: Tensor, token: Tensor) -> Tensor:
        pairs, which = distinct(row, token)
        found = [self.automaton.accepts(self.moved(self.rows[p], v).cells) for p, v in pairs]
        return torch.tensor(found, dtype=torch.bool)[which]

    def allowed(self) -> Tensor:
        out = torch.empty(len(self.rows), self.walk.vocabulary, dtype=torch.bool)
        for at, row in enumerate(self.rows):
            left = NEVER if self.most is None else min(self.most - row.length, NEVER)
            out[at] = torch.from_numpy(self.walk.needs(row.cells) < left)
        return out

    def within(self, max_tokens: int) -> None:
        self.most = max_tokens

    def marks(self) -> Tensor:
        return torch.tensor([row.scan.marks for row in self.rows], dtype=torch.int64)

    def needs(self) -> int:
        return self.walk.fewest(self.automaton.start)
