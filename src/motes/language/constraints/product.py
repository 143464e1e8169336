"""Several constraints at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from motes.errors import EmptyConstraint, MotesError
from motes.language.constraint import Constraint, Recogniser, constraints
from motes.language.models.model import LanguageModel


@dataclass(frozen=True)
class Both(Constraint):
    """Texts that satisfy every part. Made by `both` or `&`."""

    parts: tuple[Constraint, ...]

    @property
    def kind(self) -> str:
        return " and the ".join(part.kind for part in self.parts)

    @property
    def quantity(self) -> str:
        plain = super().quantity
        return next((part.quantity for part in self.parts if part.quantity != plain), plain)

    def settings(self) -> dict[str, Any]:
        return {"kind": "both", "parts": [part.settings() for part in self.parts]}

    def recogniser(self, model: LanguageModel) -> Recogniser:
        product = Product([part.open(model) for part in self.parts])
        if not product.allowed().any():
            raise EmptyConstraint(
                f"nothing can satisfy the {self.kind}: each can be satisfied, but they have no first token of "
                f"{model.name} in common"
            )
        return product


@constraints.register
def both(*parts: Constraint) -> Constraint:
    """Texts that satisfy all of several constraints; `a & b` is `both(a, b)`.

    The mask is what all masks have in common and single tokens are tested by those that need it. Each part alone may
    allow what the parts together never let end, so a text can run into a dead end; it then has weight zero.

    Raises:
        MotesError: a part is no constraint.
    """
    flat: list[Constraint] = []
    for part in parts:
        if not isinstance(part, Constraint):
            raise MotesError(f"both takes constraints (from regex, choices, predicate, ...); {part!r} is none")
        flat += part.parts if isinstance(part, Both) else [part]
    if not flat:
        raise MotesError("both takes at least one constraint")
    return flat[0] if len(flat) == 1 else Both(tuple(flat))


class Product(Recogniser):
    """The recognisers of the parts, side by side."""

    def __init__(self, parts: list[Recogniser]):
        self.parts = parts
        self.full = all(part.full for part in parts)

    def extend(self, parent: Tensor, token: Tensor) -> None:
        for part in self.parts:
            part.extend(parent, token)

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        for part in self.parts:
            part.reopen(texts, rows)

    def accepts(self, row: Tensor, token: Tensor) -> Tensor:
        out = torch.ones(len(row), dtype=torch.bool)
        for part in self.parts:
            left = torch.nonzero(out)[:, 0]
            if len(left):
                out[left] = part.accepts(row[left], token[left])
        return out

    def allowed(self) -> Tensor:
        return reduce(torch.logical_and, (part.allowed() for part in self.parts))

    def test(self, row: Tensor, token: Tensor) -> Tensor:
        """The parts that have no full mask; tokens outside `allowed` are not to be asked about."""
        out = torch.ones(len(row), dtype=torch.bool)
        for part in self.parts:
            left = torch.nonzero(out)[:, 0]
            if len(left) and not part.full:
                out[left] = part.test(row[left], token[left])
        return out

    def within(self, max_tokens: int) -> None:
        for part in self.parts:
            part.within(max_tokens)

    def marks(self) -> Tensor | None:
        return next((marks for part in self.parts if (marks := part.marks()) is not None), None)

    def needs(self) -> int:
        return max(part.needs() for part in self.parts)
