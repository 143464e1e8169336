"""The errors of motes: each says what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motes.core.run import Run


class MotesError(ValueError):
    """Base of every error that motes raises itself. `run` holds what was reached, if a run was under way."""

    run: Run | None = None


class MotesWarning(UserWarning):
    """A run has ended, and there is something to know before its numbers are used."""


class NanLogPotential(MotesError):
    """A log-weight became NaN or +inf."""


class AllWeightsZero(MotesError):
    """Every particle has log-weight -inf, so nothing is left to sample from."""


class EmptyConstraint(MotesError):
    """Nothing can satisfy what was asked."""


class ShapeError(MotesError):
    """A tensor has a shape, a type or a device that the contract does not allow."""


class UnknownName(MotesError):
    """A name that no registry holds."""

    def __init__(self, kind: str, name: object, legal: Iterable[str]):
        super().__init__(f"no {kind} is called {name!r}; there are: {', '.join(sorted(legal))}")


class FileError(MotesError):
    """A file is truncated, foreign, or belongs to another model."""


def name_particles(index: Iterable[int], most: int = 8) -> str:
    """`particles [17, 90]`, shortened after `most` of them."""
    index = list(index)
    shown = ", ".join(str(i) for i in index[:most])
    more = f", ... ({len(index)} in all)" if len(index) > most else ""
    return f"particle{'s' if len(index) != 1 else ''} [{shown}{more}]"
