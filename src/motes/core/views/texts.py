"""Texts."""

from __future__ import annotations

import numpy as np

from motes.core.views import views
from motes.core.views._view import Column, Distinct, View, merged


@views.register
class TextView(View):
    """A list of strings, one a particle."""

    kind = "texts"
    needs = "a list of strings"
    plural = "texts"
    listed = True

    def fits(self) -> bool:
        return isinstance(self.value, list) and all(isinstance(v, str) for v in self.value)

    def __len__(self) -> int:
        return len(self.value)

    def columns(self, most: int | None = None) -> list[Column]:
        """The texts themselves."""
        return [Column("text", np.array(self.value, dtype=object), False)]

    def arrays(self) -> dict[str, np.ndarray]:
        return {"text": np.array(self.value, dtype=np.str_)}

    def distinct(self, weight: np.ndarray) -> list[Distinct]:
        return merged([(text, text) for text in self.value], weight)
