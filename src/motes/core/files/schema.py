"""What a part of a file must be, said once and checked before it is used.

A check is a function of a value and of the name of its place. It returns the value, or raises a FileError that says
what stands there and what would have to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.errors import FileError

Check = Callable[[Any, str], Any]
LARGEST = 1 << 64
"""What a whole number in a file may be, up or down."""


def shown(value: Any) -> str:
    """A value in a message: its type, and itself where it is short."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} {value.dtype}"
    written = repr(value) if isinstance(value, (bool, int, float, str)) or value is None else ""
    return written if 0 < len(written) <= 60 else f"a {type(value).__name__}"


def refuse(value: Any, where: str, wanted: str) -> FileError:
    """The error that names a place, what it must hold, and what it holds."""
    return FileError(f"{where} must be {wanted}, not {shown(value)}")


def whole(low: int = -LARGEST, high: int = LARGEST) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise refuse(value, where, f"a whole number from {low} to {high}")
        return value

    return check


def number(low: float = -math.inf, high: float = math.inf, *, nan: bool = True) -> Check:
    """A number (or a truth value) from `low` to `high`; NaN too unless `nan` is False."""

    def check(value: Any, where: str) -> float:
        if not isinstance(value, (int, float)) or not (low <= value <= high or (nan and value != value)):
            raise refuse(value, where, f"a number from {low} to {high}")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise refuse(value, where, f"a number from {low} to {high}")
        return value

    return check


def truth(value: Any, where: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise refuse(value, where, "true or false")
    return value


def text(*legal: str) -> Check:
    """A text; one of `legal`, if there are any."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or (legal and value not in legal):
            raise refuse(value, where, f"one of {', '.join(legal)}" if legal else "a text")
        return value

    return check


def either(*checks: Check | None) -> Check:
    """What passes one of several checks; None stands for null."""

    def check(value: Any, where: str) -> Any:
        errors = []
        for one in checks:
            if one is None:
                if value is None:
                    return value
                continue
            try:
                return one(value, where)
            except FileError as error:
                errors.append(error)
        raise errors[-1]

    return check


def both(*checks: Check) -> Check:
    """What passes each of several checks."""

    def check(value: Any, where: str) -> Any:
        for one in checks:
            value = one(value, where)
        return value

    return check


def anything(value: Any, where: str) -> Any:
    """Any value."""
    return value


def dictionary(of: Check = anything) -> Check:
    """A dict with string keys whose values pass `of`."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise refuse(value, where, "a dict with string keys")
        return {k: of(v, f"{where}[{k!r}]") for k, v in value.items()}

    return check


def array(of: Check = anything, low: int = 0) -> Check:
    """A list of at least `low` values that pass `of`."""

    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or len(value) < low:
            raise refuse(value, where, f"a list of {low} values or more" if low else "a list")
        return [of(v, f"{where}[{k}]") for k, v in enumerate(value)]

    return check


def record(may: dict[str, Check] | None = None, /, **must: Check) -> Check:
    """A dict with the keys `must`, perhaps the keys `may`, whose values pass their checks; others stay as they are."""

    def check(value: Any, where: str) -> dict[str, Any]:
        found = dictionary()(value, where)
        missing = [k for k in must if k not in found]
        if missing:
            raise FileError(f"{where} lacks {', '.join(missing)}")
        parts = {**must, **{k: one for k, one in (may or {}).items() if k in found}}
        return {**found, **{k: one(found[k], f"{where}[{k!r}]") for k, one in parts.items()}}

    return check


def exactly(**must: Check) -> Check:
    """A dict with these keys and no others, whose values pass their checks."""

    def check(value: Any, where: str) -> dict[str, Any]:
        found = record(**must)(value, where)
        if more := [k for k in found if k not in must]:
            raise FileError(f"{where} has {', '.join(map(repr, more[:8]))}, of which nothing is known")
        return found

    return check


def tensor(
    dtype: torch.dtype | None, *shape: int | None, low: float = -math.inf, high: float = math.inf, nan: bool = True
) -> Check:
    """A tensor of a type (None: any) and a shape (None: any length), with entries from `low` to `high`."""

    def check(value: Any, where: str) -> Tensor:
        wanted = f"a tensor ({', '.join('...' if s is None else str(s) for s in shape)}) {dtype or ''}".rstrip()
        if not isinstance(value, Tensor) or value.ndim != len(shape) or (dtype is not None and value.dtype != dtype):
            raise refuse(value, where, wanted)
        if any(s is not None and s != k for s, k in zip(shape, value.shape, strict=True)):
            raise refuse(value, where, wanted)
        bad = (value < low) | (value > high) | (torch.isnan(value) & (not nan))
        if bad.any():
            raise FileError(f"{where} must hold numbers from {low} to {high}, not {value[bad][0].item()}")
        return value

    return check
