"""One of several texts, spelt by any tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from motes.errors import MotesError
from motes.language.constraint import Constraint, Recogniser, constraints, must_be_text, shorten
from motes.language.constraints.spelt import Spelt
from motes.language.models.model import LanguageModel


@dataclass(frozen=True)
class Choices(Constraint):
    """Texts out of a list. Made by `choices`."""

    texts: tuple[str, ...]

    @property
    def kind(self) -> str:
        return f"choice of {len(self.texts)} texts {shorten(', '.join(map(repr, self.texts)))}"

    def settings(self) -> dict[str, Any]:
        return {"kind": "choices", "texts": list(self.texts)}

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return Listed(self, model)


@constraints.register
def choices(texts: Sequence[str]) -> Constraint:
    """Exactly one of these texts; any sequence of tokens that spells it counts.

    The mask keeps a token only if some text can be completed after it with the model's tokens, so nothing runs into a
    dead end.

    Raises:
        MotesError: it is no list of different strings.
    """
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise MotesError(f"choices takes a list of at least one string, not {list(texts)!r}")
    for text in texts:
        must_be_text("choice", text)
    if len(set(texts)) < len(texts):
        twice = sorted({text for text in texts if texts.count(text) > 1})
        raise MotesError(f"the choices {twice} are given twice: give each once; weights belong into a reward")
    return Choices(texts)


class Listed(Spelt):
    """The choices that each row's text begins, and what is left of them."""

    def __init__(self, constraint: Choices, model: LanguageModel):
        super().__init__(model)
        self.choices: list[bytes] = [text.encode() for text in constraint.texts]
        self.least: dict[bytes, list[float]] = {text: self.pieces.fewest(text) for text in self.choices}

    def mask(self, text: bytes) -> Tensor:
        at, written = len(text), set()
        for choice in self.choices:
            if choice.startswith(text):
                ends = range(at + 1, min(len(choice), at + self.pieces.longest) + 1)
                written |= {choice[at:e] for e in ends if self.least[choice][e] < float("inf")}
        return self.only(sorted(written), text in self.least)

    def accepted(self, texts: list[bytes]) -> list[bool]:
        return [text in self.least for text in texts]

    def needs(self) -> int:
        least = min(fewest[0] for fewest in self.least.values())
        return int(least) if least < float("inf") else 0
