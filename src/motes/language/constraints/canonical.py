"""Texts spelt as the tokenizer spells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.constraint import Constraint, Recogniser, constraints, distinct
from motes.language.constraints.pieces import pieces, whole
from motes.language.models.model import LanguageModel

PROBES = (b"a", b" a", b"1", b".", b"\n")
"""What may follow a text and change how its last characters are cut: a letter, a space, a digit, a mark, a new line."""


@dataclass(frozen=True)
class Canonical(Constraint):
    """Texts in the tokenizer's own spelling. Made by `canonical`."""

    @property
    def kind(self) -> str:
        return "canonical tokenisation"

    def settings(self) -> dict[str, Any]:
        return {"kind": "canonical"}

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return Spellings(model)


@constraints.register
def canonical() -> Constraint:
    """Texts whose tokens are those that the tokenizer gives for them.

    What is guaranteed: a text that ends (or is cut and accepted) has exactly the tokens that the tokenizer gives for
    its characters alone, without the prompt. On the way a prefix is kept if its tokens are those of its text, or the
    first tokens of its text followed by a letter, a space and a letter, a digit, a full stop or a new line. With
    byte-pair encoding a prefix of a canonical text is canonical within a word, so no canonical text is lost but those
    that a tokenizer's splitting cuts differently for the sake of still other characters. A prefix that ends within a
    character is kept until the character is whole. Each token that is considered is encoded (about 20 microseconds a
    short text), and drawn by adaptive weighted rejection.
    """
    return Canonical()


class Spellings(Recogniser):
    """The tokens of each row, and what the tokenizer would have written."""

    model: LanguageModel

    full = False

    def __init__(self, model: LanguageModel):
        self.model, self.pieces = model, pieces(model)
        self.rows: list[tuple[int, ...]] = [()]
        first = next(v for v in range(model.vocabulary) if self.pieces.bytes[v].isalpha())
        if self.pieces.write(self.pieces.encode(self.pieces.bytes[first])) != self.pieces.bytes[first]:
            raise MotesError(
                f"the tokenizer of {model.name} changes a text before it cuts it (a space in front, say), so that no "
                "tokens are canonical for what a model continues"
            )

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = zip(parent.tolist(), token.tolist(), strict=True)
        self.rows = [(*self.rows[p], v) if v >= 0 else self.rows[p] for p, v in pairs]

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        self.rows = [tuple(texts.get(row, ())) for row in range(rows)]

    def accepts(self, row: Tensor, token: Tensor) -> Tensor:
        pairs, which = distinct(row, token)
        return torch.tensor([self.exact((*self.rows[r], v)) for r, v in pairs], dtype=torch.bool)[which]

    def allowed(self) -> Tensor:
        return torch.ones(len(self.rows), self.model.vocabulary, dtype=torch.bool)

    def test(self, row: Tensor, token: Tensor) -> Tensor:
        pairs, which = distinct(row, token)
        found = [self.exact(self.rows[r]) if v in self.pieces.end else self.begun((*self.rows[r], v)) for r, v in pairs]
        return torch.tensor(found, dtype=torch.bool)[which]

    def exact(self, tokens: tuple[int, ...]) -> bool:
        return self.pieces.encode(self.pieces.write(tokens)) == list(tokens)

    def begun(self, tokens: tuple[int, ...]) -> bool:
        if not self.pieces.bytes[tokens[-1]]:  # a control token is never what a text is cut into
            return False
        text = self.pieces.write(tokens)
        _, waits, valid = whole(text)
        if not valid or waits:
            return valid
        known = list(tokens)
        return self.exact(tokens) or any(self.pieces.encode(text + more)[: len(known)] == known for more in PROBES)
