"""Where guesses of the next tokens come from: an earlier place in the text, or a smaller model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.errors import MotesError, check_whole
from motes.language.models.model import LanguageModel

LEVIATHAN = cited("leviathan2023", "several tokens evaluated in one call of the model")


class Drafter(ABC):
    """Guesses for the rows of one run; it follows them as they branch."""

    @abstractmethod
    def extend(self, parent: Tensor, token: Tensor) -> None:
        """As for `Prefixes`: row i becomes the old row `parent[i]` with `token[i]` behind it, -1 for none."""

    @abstractmethod
    def guess(self, rows: Sequence[int], most: Sequence[int]) -> list[list[int]]:
        """Tokens that may come next in each of these rows, at most `most`."""


class Draft(ABC):
    """A source of guesses."""

    @abstractmethod
    def open(self, model: LanguageModel, prompt: Tensor, max_tokens: int) -> Drafter:
        """Guesses behind a prompt (P,), for one row as yet."""

    def check(self, model: LanguageModel) -> None:
        """The draft's guesses are tokens of `model`.

        Raises:
            MotesError: it has another vocabulary or other end tokens.
        """
        return

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The draft as JSON."""


@dataclass(frozen=True)
class PromptLookup(Draft):
    """What followed the last tokens where they stood before, in the prompt or in the text; it costs nothing.

    Args:
        longest: how many of the last tokens are looked for at first; then one fewer, down to one.

    Raises:
        MotesError: `longest` is no whole number of at least 1.
    """

    longest: int = 3

    def __post_init__(self) -> None:
        check_whole(1, longest=self.longest)

    def open(self, model: LanguageModel, prompt: Tensor, max_tokens: int) -> Drafter:
        return _Lookup(tuple(prompt.tolist()), self.longest)

    def settings(self) -> dict[str, Any]:
        return {"draft": "prompt look-up", "longest": self.longest}


class _Lookup(Drafter):
    def __init__(self, prompt: tuple[int, ...], longest: int):
        self.rows, self.longest = [prompt], longest

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = zip(parent.tolist(), token.tolist(), strict=True)
        self.rows = [self.rows[p] if v < 0 else (*self.rows[p], v) for p, v in pairs]

    def guess(self, rows: Sequence[int], most: Sequence[int]) -> list[list[int]]:
        return [found(self.rows[i], self.longest, k) for i, k in zip(rows, most, strict=True)]


def found(text: tuple[int, ...], longest: int, most: int) -> list[int]:
    """What followed the latest earlier place of the last tokens of `text`, at most `most` tokens."""
    for size in range(min(longest, len(text) - 1), 0, -1):
        last = text[-size:]
        for at in range(len(text) - size - 1, -1, -1):
            if text[at : at + size] == last:
                return list(text[at + size : at + size + most])
    return []


@dataclass(frozen=True)
class ModelDraft(Draft):
    """The likeliest continuation under a smaller model with the same tokens.

    Args:
        model: the smaller model; it reads every token of every row, and the guesses.
    """

    model: LanguageModel

    def __post_init__(self) -> None:
        if not isinstance(self.model, LanguageModel):
            raise MotesError(f"a ModelDraft guesses with a model, as from motes.language.load, not {self.model!r}")

    def check(self, model: LanguageModel) -> None:
        small = self.model
        if small.vocabulary != model.vocabulary or small.end != model.end:
            raise MotesError(
                f"the draft model {small.name} has {small.vocabulary} tokens (end {small.end}), and {model.name} has "
                f"{model.vocabulary} (end {model.end}): a draft must have the same vocabulary"
            )

    def open(self, model: LanguageModel, prompt: Tensor, max_tokens: int) -> Drafter:
        self.check(model)
        return _Greedy(self.model, prompt, max_tokens)

    def settings(self) -> dict[str, Any]:
        return {"draft": self.model.settings()}


class _Greedy(Drafter):
    def __init__(self, model: LanguageModel, prompt: Tensor, max_tokens: int):
        self.prefixes = model.prefixes(prompt, max_tokens)

    def extend(self, parent: Tensor, token: Tensor) -> None:
        self.prefixes.extend(parent, token)

    def guess(self, rows: Sequence[int], most: Sequence[int]) -> list[list[int]]:
        wanted = torch.zeros(len(self.prefixes.length), dtype=torch.int64)
        wanted[list(rows)] = torch.tensor(list(most))
        L = int(wanted.max()) if len(rows) else 0
        start, before = self.prefixes.length.clone(), self.prefixes.logits
        tokens = torch.zeros(len(wanted), L, dtype=torch.int64)
        for j in range(L):
            tokens[:, j] = self.prefixes.logits.argmax(-1).cpu()
            if j + 1 < L:  # the last guess need not be read
                going = (wanted > j + 1).long()
                self.prefixes.look(tokens[:, j : j + 1], going)
                self.prefixes.keep(going)
        self.prefixes.shorten(start, before)
        return [tokens[i, :k].tolist() for i, k in zip(rows, most, strict=True)]
