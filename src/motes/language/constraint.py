"""What a text must satisfy, recognised token by token. One file of `motes.language.constraints` for each kind.

A recogniser's states belong to the distinct prefixes of a run, not to the particles: copies share one until they part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.core.registry import Registry
from motes.errors import EmptyConstraint, MotesError
from motes.language.models.model import LanguageModel


class Recogniser(ABC):
    """Where the prefixes of a run stand with respect to a constraint, one state a row; at first the empty text."""

    full: bool = True
    """Whether `allowed` is all there is to know of the next token. If not, `test` has the last word."""

    @abstractmethod
    def extend(self, parent: Tensor, token: Tensor) -> None:
        """Let row i become the old row `parent[i]` with `token[i]` behind it, (A',) int64 each; -1: no token."""

    @abstractmethod
    def reopen(self, texts: dict[int, list[int]], rows: int) -> None:
        """Begin again with the text `texts[i]` in row i of `rows`; the other rows stand at the beginning."""

    @abstractmethod
    def accepts(self, row: Tensor, token: Tensor) -> Tensor:
        """(M,) bool: whether the text of `row[i]` with `token[i]`, no end token, behind it satisfies the constraint."""

    @abstractmethod
    def allowed(self) -> Tensor:
        """(A, V) bool: the tokens that may come next. If `full` is False, no token outside passes `test`."""

    def test(self, row: Tensor, token: Tensor) -> Tensor:
        """(M,) bool: whether the text of `row[i]` with `token[i]` behind it is not yet refused.

        An end token asks whether the text of the row satisfies the constraint as it is. Never more generous than
        `allowed`, which it is for a full recogniser.
        """
        return self.allowed()[row, token]

    def needs(self) -> int:
        """Lower bound on the length of an accepted text, in tokens, the end not counted; 0: not known."""
        return 0

    def within(self, max_tokens: int) -> None:
        """From now on no token is allowed behind which a text is known not to end within `max_tokens` tokens."""
        return

    def marks(self) -> Tensor | None:
        """(A,) int64: how many boundaries of its structure each row has passed; None: there are none to speak of.

        A population is best compared where all its texts have passed as many: between two boundaries, a text that
        lingers where everything is allowed looks better than one that has gone on and paid for it.
        """
        return None


class Constraint(ABC):
    """A set of texts. It is tied to a model's tokens by `open`, and `a & b` is what satisfies both."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is, for messages."""

    @property
    def quantity(self) -> str:
        """What the log of the probability of such a text is called."""
        return "log P(valid)"

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constraint as JSON."""

    @abstractmethod
    def recogniser(self, model: LanguageModel) -> Recogniser:
        """A recogniser at the beginning of a text, whether or not any text satisfies it."""

    def sketch(self, model: LanguageModel) -> list[int] | None:
        """The tokens of a short text that satisfies it, where one can be written down at once."""
        return None

    def open(self, model: LanguageModel, max_tokens: int | None = None) -> Recogniser:
        """A recogniser at the beginning of a text.

        Raises:
            EmptyConstraint: no text that the model's tokens can spell begins to satisfy it, or none that satisfies it
                is known to fit into `max_tokens` tokens.
            MotesError: the recogniser cannot handle it with this vocabulary.
        """
        recogniser = self.recogniser(model)
        if not recogniser.allowed().any():
            raise EmptyConstraint(
                f"nothing can satisfy the {self.kind}: no token of {model.name} can begin such a text, and the empty "
                "text is none"
            )
        if max_tokens is not None and (least := recogniser.needs()) > max_tokens:
            raise EmptyConstraint(
                f"nothing that satisfies the {self.kind} fits into max_tokens={max_tokens}: it needs at least {least} "
                f"tokens of {model.name}; raise max_tokens"
            )
        return recogniser

    def __and__(self, other: Constraint) -> Constraint:
        return constraints["both"](self, other)


constraints: Registry[Callable[..., Constraint]] = Registry("constraint", "motes.language.constraints")
"""The functions that make constraints, by name."""


def must_be_text(what: str, text: object) -> None:
    """A MotesError for what is no string, or holds half a character, which no text has."""
    if not isinstance(text, str):
        raise MotesError(f"a {what} must be a string, not {type(text).__name__}")
    half = next((at for at, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
    if half is not None:
        raise MotesError(f"the {what} {shorten(ascii(text))} holds half a character (a lone surrogate) at {half}")


def shorten(text: str, most: int = 120) -> str:
    return repr(text if len(text) <= most else text[:most] + "...")


def distinct(row: Tensor, token: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
    """The different pairs of (M,) and (M,), and which of them each is (M,)."""
    place: dict[tuple[int, int], int] = {}
    which = [place.setdefault(pair, len(place)) for pair in zip(row.tolist(), token.tolist(), strict=True)]
    return list(place), torch.tensor(which, dtype=torch.int64)
