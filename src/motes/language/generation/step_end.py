"""Where one step of the engine ends: behind a token, a piece of text, a part of the constraint's structure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.language.constraint import Recogniser
from motes.language.generation.frontier import Closed
from motes.language.generation.potential import reward_name
from motes.language.generation.prefix import PrefixState
from motes.language.models.model import LanguageModel

Boundary = str | Callable[[str], bool]
LOST = 20.0
"""A text that has paid more than this within a part of the structure, nats, is not waited for until that ends."""
GoesOn = Callable[[PrefixState, Tensor, Tensor], Tensor]
"""Which of the unfinished texts (N,) bool are still within their step, given what the step has gained them (N,)."""


class StepEnd(ABC):
    """Says of each text when its step is over."""

    @abstractmethod
    def begin(self, state: PrefixState) -> GoesOn:
        """Asked at the beginning of a step; the answer is asked after each of its tokens."""

    @abstractmethod
    def name(self) -> str | None:
        """For the settings of a run."""


@dataclass(frozen=True)
class AfterToken(StepEnd):
    """A step is a token."""

    def begin(self, state: PrefixState) -> GoesOn:
        return lambda state, inside, gained: torch.zeros_like(inside)

    def name(self) -> str:
        return "token"


@dataclass(frozen=True)
class AfterText(StepEnd):
    """A step ends with a string, or where a function says that the text written since the last end is a whole step."""

    model: LanguageModel
    boundary: Boundary

    def begin(self, state: PrefixState) -> GoesOn:
        def goes_on(state: PrefixState, inside: Tensor, gained: Tensor) -> Tensor:
            out = inside.clone()
            for i in torch.nonzero(inside)[:, 0].tolist():
                text = self.model.decode(state.tokens[i, int(state.began[i]) : int(state.length[i])].tolist())
                out[i] = not (self.boundary in text if isinstance(self.boundary, str) else self.boundary(text))
            return out

        return goes_on

    def name(self) -> str | None:
        return reward_name(self.boundary) if callable(self.boundary) else self.boundary


@dataclass(frozen=True)
class AtMarks(StepEnd):
    """A step ends where the constraint says that a part of its structure does, or where too much has been paid."""

    def begin(self, state: PrefixState) -> GoesOn:
        before = _marks(state)

        def goes_on(state: PrefixState, inside: Tensor, gained: Tensor) -> Tensor:
            now = _marks(state)
            within = torch.zeros_like(inside) if now is None or before is None else inside & (now == before)
            return within & (gained > -LOST)

        return goes_on

    def name(self) -> str:
        return "structure"


@dataclass(frozen=True)
class AtEnd(StepEnd):
    """A step is a whole text."""

    def begin(self, state: PrefixState) -> GoesOn:
        return lambda state, inside, gained: inside

    def name(self) -> str:
        return "text"


def _marks(state: PrefixState) -> Tensor | None:
    """(N,) the structural boundaries that each text has passed, if the constraint knows such places."""
    if isinstance(state.frontier, Closed) or state.reader.recogniser is None:
        return None
    marks = state.reader.recogniser.marks()
    return None if marks is None else marks[state.place]


def choose_end(step: Boundary, model: LanguageModel, recogniser: Recogniser | None, judged: bool) -> StepEnd:
    """Of a generation with this `step` and constraint; `judged`: unfinished texts are asked about."""
    if step not in ("token", "auto"):
        return AfterText(model, step)
    marked = recogniser is not None and recogniser.marks() is not None
    return AtMarks() if step == "auto" and marked and not judged else AfterToken()
