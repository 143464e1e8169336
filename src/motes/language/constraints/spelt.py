"""Recognisers whose state is a function of the bytes so far."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from motes.language.constraint import Recogniser, distinct
from motes.language.constraints.pieces import pieces
from motes.language.models.model import LanguageModel


class Spelt(Recogniser):
    """A recogniser that knows the text of each row as bytes; masks of equal texts are found once."""

    model: LanguageModel

    def __init__(self, model: LanguageModel):
        self.model, self.pieces = model, pieces(model)
        self.texts = [b""]
        self.masks: dict[bytes, Tensor] = {}

    @abstractmethod
    def mask(self, text: bytes) -> Tensor:
        """(V,) bool: the tokens that may follow `text`."""

    @abstractmethod
    def accepted(self, texts: list[bytes]) -> list[bool]:
        """Whether the texts satisfy the constraint if they end here."""

    def key(self, text: bytes) -> bytes:
        """What of the text decides its mask."""
        return text

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = zip(parent.tolist(), token.tolist(), strict=True)
        self.texts = [self.texts[p] + (self.pieces.bytes[v] if v >= 0 else b"") for p, v in pairs]

    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        self.texts: list[bytes] = [self.pieces.write(texts.get(row, [])) for row in range(rows)]

    def accepts(self, row: Tensor, token: Tensor) -> Tensor:
        pairs, which = distinct(row, token)
        found = self.accepted([self.texts[r] + self.pieces.bytes[v] for r, v in pairs])
        return torch.tensor(found, dtype=torch.bool)[which]

    def allowed(self) -> Tensor:
        keys = [self.key(text) for text in self.texts]
        for key in set(keys) - self.masks.keys():
            self.masks[key] = self.mask(key)
        out = torch.stack([self.masks[key] for key in keys])
        self.masks = {key: self.masks[key] for key in set(keys)}
        return out

    def only(self, written: list[bytes], end: bool) -> Tensor:
        """(V,) bool: the tokens that write one of these, and the end tokens if `end`."""
        mask = torch.zeros(self.model.vocabulary, dtype=torch.bool)
        mask[[v for piece in written for v in self.pieces.tokens_of.get(piece, [])]] = True
        if end:
            mask[list(self.model.end)] = True
        return mask
