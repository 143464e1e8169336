"""The errors of motes: each says what is wrong, where, and how to mend it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

__all__ = [
    "AllWeightsZero",
    "EmptyConstraint",
    "FileError",
    "MissingFile",
    "MissingPackage",
    "MotesError",
    "MotesWarning",
    "NanLogPotential",
    "ShapeError",
    "UnknownName",
    "Unsupported",
    "WrongType",
]


class MotesError(ValueError):
    """Base of every error that motes raises itself. `run` is the `motes.Run` so far, if one was under way, or None."""

    run: Any = None


class MotesWarning(UserWarning):
    """Warning of what to know before the numbers of a run are used."""


class NanLogPotential(MotesError):
    """A log-weight became NaN or +inf."""


class AllWeightsZero(MotesError):
    """Every particle has log-weight -inf, so nothing is left to sample from."""


class EmptyConstraint(MotesError):
    """Nothing can satisfy what was asked."""


class ShapeError(MotesError):
    """A tensor has a shape, a type or a device that the contract does not allow."""


class WrongType(MotesError, TypeError):
    """An argument is of a kind that cannot be meant, such as `n="x"`."""


class Unsupported(MotesError, NotImplementedError):
    """What was asked has a meaning that motes has no way to compute."""


class UnknownName(MotesError, KeyError):
    """A name that nothing has: `legal` are those that there are."""

    __str__ = Exception.__str__  # that of KeyError puts the message in quotes

    def __init__(self, kind: str, name: object, legal: Iterable[str]):
        legal = sorted(legal)
        super().__init__(f"no {kind} is called {name!r}{perhaps(name, legal)}; there are: {', '.join(legal) or 'none'}")

    def __reduce__(self) -> tuple[Any, ...]:
        """The message is kept and not made again, so that the error can go from one process to another."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


def perhaps(name: object, legal: Iterable[str]) -> str:
    """`, perhaps you meant 'slope'`, or nothing where no legal name is near; upper and lower case are alike."""
    plain = {folded(k): k for k in legal}
    near = get_close_matches(folded(str(name)), plain, n=1)
    return f", perhaps you meant {plain[near[0]]!r}" if near else ""


def folded(name: str) -> str:
    """A name without what is easily got wrong: case, hyphens, underscores and blanks."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


class FileError(MotesError):
    """A file is truncated, foreign, or belongs to another model."""


class MissingFile(FileError, FileNotFoundError):
    """A file that is not there."""


class MissingPackage(MotesError, ImportError):
    """What was asked needs a package that is not installed; the message names the extra that brings it."""


@contextmanager
def needing(what: str) -> Iterator[None]:
    """What is imported inside is an extra; `what` says in the error who needs which, and how to get it."""
    try:
        yield
    except ImportError as error:
        raise MissingPackage(what) from error


def name_particles(index: Iterable[int], most: int = 8) -> str:
    """`particles [17, 90]`, shortened after `most` of them."""
    index = list(index)
    shown = ", ".join(str(i) for i in index[:most])
    more = f", ... ({len(index)} in all)" if len(index) > most else ""
    return f"particle{'s' if len(index) != 1 else ''} [{shown}{more}]"


def plural(n: int, noun: str) -> str:
    """`1 step`, `3 steps`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def check_name(kind: str, name: object, legal: Collection[str]) -> None:
    """`name` is one of the legal ones; `kind` says in the error what it names."""
    if name not in legal:
        raise UnknownName(kind, name, legal)


def check_at_least(least: float, /, **values: float) -> None:
    """Each of the values, under the names of their arguments, is `least` or more."""
    for name, value in values.items():
        if not value >= least:
            raise MotesError(f"{name} must be at least {least}, not {value}")


def check_positive(**values: float) -> None:
    """Each of the values, under the names of their arguments, is above zero."""
    for name, value in values.items():
        if not value > 0:
            raise MotesError(f"{name} must be positive, not {value}")


def check_share(interval: str, /, **values: float) -> None:
    """Each of the values, under the names of their arguments, lies in an interval written as `"[0, 1)"`."""
    for name, value in values.items():
        if not (0 < value < 1 or (value == 0 and interval[0] == "[") or (value == 1 and interval[-1] == "]")):
            raise MotesError(f"{name} must lie in {interval}, not {value!r}")


def check_whole(least: int, /, **values: object) -> None:
    """Each of the values, under the names of their arguments, is a whole number of `least` or more."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise MotesError(f"{name} must be a whole number of at least {least}, not {value!r}")


def warn(message: str) -> None:
    """A `MotesWarning` at the line outside of this package that led here, however deep the call is."""
    home, frame, level = str(Path(__file__).parents[1]) + os.sep, sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(home):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, MotesWarning, stacklevel=level)
