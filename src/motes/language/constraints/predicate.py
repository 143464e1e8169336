"""What a function of the text says, asked token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.constraint import Constraint, Recogniser, constraints, distinct, shorten
from motes.language.constraints.pieces import whole
from motes.language.constraints.spelt import Spelt
from motes.language.models.model import LanguageModel

Function = Callable[[Any], Any]
MOST_REMEMBERED = 100_000


@dataclass(frozen=True)
class Predicate(Constraint):
    """Texts of which a function says True. Made by `predicate`."""

    prefix: Function
    complete: Function
    batched: bool
    name: str

    @property
    def kind(self) -> str:
        return f"predicate {self.name}"

    def settings(self) -> dict[str, Any]:
        return {"kind": "predicate", "name": self.name}

    def recogniser(self, model: LanguageModel) -> Recogniser:
        return Asked(self, model)


@constraints.register
def predicate(
    prefix: Function, *, complete: Function | None = None, batched: bool = False, name: str | None = None
) -> Constraint:
    """Texts every beginning of which passes a function, and the whole of which passes another.

    A beginning is the text at the end of a token, as far as its characters are whole. Each token that is considered is
    asked about on its own (the texts are remembered), so tokens are drawn by adaptive weighted rejection.

    Args:
        prefix: maps a text so far to whether it can still end well. The less it refuses that is lost, the more texts
            die later with weight zero.
        complete: maps a whole text to whether it is valid; without it, `prefix` again.
        batched: the functions map a list of texts to as many answers.
        name: what messages and settings call it; without it, the function's own name.

    Raises:
        MotesError: an argument is no function; later, a function raises or does not return True or False.
    """
    complete = prefix if complete is None else complete
    for function in (prefix, complete):
        if not callable(function):
            raise MotesError(f"a predicate is a function of a text, not {type(function).__name__}")
    return Predicate(prefix, complete, batched, name or getattr(prefix, "__name__", type(prefix).__name__))


class Asked(Spelt):
    """What the functions said of the texts so far."""

    full = False

    def __init__(self, constraint: Predicate, model: LanguageModel):
        super().__init__(model)
        self.constraint = constraint
        self.answers: dict[tuple[bool, str], bool] = {}
        self.every: Tensor = torch.ones(model.vocabulary, dtype=torch.bool)

    def key(self, text: bytes) -> bytes:
        return b""

    def mask(self, text: bytes) -> Tensor:
        return self.every

    def accepted(self, texts: list[bytes]) -> list[bool]:
        begun = self.ask([(False, whole(text)[0]) for text in texts])
        ended = [i for i, ok in enumerate(begun) if ok]
        for i, ok in zip(ended, self.ask([(True, ending(texts[i])) for i in ended]), strict=True):
            begun[i] = ok
        return begun

    def test(self, row: Tensor, token: Tensor) -> Tensor:
        pairs, which = distinct(row, token)
        questions = [
            (True, ending(self.texts[r]))
            if v in self.pieces.end
            else (False, whole(self.texts[r] + self.pieces.bytes[v])[0])
            for r, v in pairs
        ]
        return torch.tensor(self.ask(questions), dtype=torch.bool)[which]

    def ask(self, questions: Sequence[tuple[bool, str]]) -> list[bool]:
        """The answers, of `complete` where the question begins with True and of `prefix` otherwise."""
        if len(self.answers) > MOST_REMEMBERED:
            self.answers.clear()
        for end in (False, True):
            new = list(dict.fromkeys(text for e, text in questions if e == end and (e, text) not in self.answers))
            if new:
                self.answers |= {(end, text): ok for text, ok in zip(new, self._call(end, new), strict=True)}
        return [self.answers[question] for question in questions]

    def _call(self, end: bool, texts: list[str]) -> list[bool]:
        c = self.constraint
        function = c.complete if end else c.prefix
        try:
            found = list(function(texts)) if c.batched else [function(text) for text in texts]
        except Exception as error:
            raise MotesError(
                f"the {c.kind} failed on {shorten(texts[0])} ({len(texts)} texts): {type(error).__name__}: {error}"
            ) from error
        if len(found) != len(texts):
            raise MotesError(f"the {c.kind} gave {len(found)} answers for {len(texts)} texts")
        return [self._checked(text, answer) for text, answer in zip(texts, found, strict=True)]

    def _checked(self, text: str, answer: Any) -> bool:
        if isinstance(answer, bool):
            return answer
        try:
            value = answer.item()  # of a tensor or an array
        except AttributeError:
            value = answer
        if value is True or value is False:
            return value
        raise MotesError(f"the {self.constraint.kind} must return True or False, not {answer!r} for {shorten(text)}")


def ending(text: bytes) -> str:
    """A whole text as `decode` shows it: what is no character is replaced."""
    return text.decode("utf-8", errors="replace")
