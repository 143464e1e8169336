"""Texts that begin with given bytes; what the first tokens write may go beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.constraint import Constraint, Recogniser, constraints, must_be_text
from motes.language.constraints.spelt import Spelt
from motes.language.models.model import LanguageModel


@dataclass(frozen=True)
class StartsWith(Constraint):
    """Texts with a given beginning. Made by `starts_with`."""

    beginning: bytes

    @property
    def kind(self) -> str:
        return f"beginning {self.beginning!r}"

    def settings(self) -> dict[str, Any]:
        return {"kind": "starts_with", "beginning": self.beginning.hex()}

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return Begun(self, model)


@constraints.register
def starts_with(beginning: str | bytes) -> Constraint:
    """Texts that begin with these characters or bytes, however tokens spell them and go on.

    Raises:
        MotesError: the beginning is neither a string nor bytes.
    """
    if not isinstance(beginning, (str, bytes)):
        raise MotesError(f"a text can begin with a string or bytes, not with {type(beginning).__name__}")
    if isinstance(beginning, str):
        must_be_text("beginning", beginning)
    return StartsWith(beginning.encode() if isinstance(beginning, str) else beginning)


class Begun(Spelt):
    """How much of the beginning each row's text has, at most all of it."""

    def __init__(self, constraint: StartsWith, model: LanguageModel):
        super().__init__(model)
        self.beginning: bytes = constraint.beginning
        self.least: list[float] = self.pieces.fewest(self.beginning, more=True)

    def key(self, text: bytes) -> bytes:
        return text[: len(self.beginning)]

    def mask(self, text: bytes) -> Tensor:
        at = len(text)
        if at == len(self.beginning):
            return torch.ones(self.model.vocabulary, dtype=torch.bool)
        rest = self.beginning[at:]
        ends = [k for k in range(1, min(len(rest), self.pieces.longest) + 1) if self.least[at + k] < float("inf")]
        return self.only([rest[:k] for k in ends] + self.pieces.beginning_with(rest), False)

    def accepted(self, texts: list[bytes]) -> list[bool]:
        return [text.startswith(self.beginning) for text in texts]

    def needs(self) -> int:
        return int(self.least[0]) if self.least[0] < float("inf") else 0
