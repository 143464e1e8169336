"""What a check says of a law that does not hold, and how sure it is of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from statistics import NormalDist

import torch
from torch import Tensor

from motes.core.estimate.ranks import chi_squared_tail
from motes.errors import MotesError, UnknownName, WrongType

Z = 4.9
"""Standard errors that a mean may be off: a two-sided level of 1e-6 for each mean that is looked at."""
ROUNDING = 1e-9
"""Relative differences that rounding may make."""


class LawViolation(MotesError, AssertionError):
    """A law that a kernel, scheme, rule or model must keep does not hold; `law` is its name."""

    def __init__(self, law: str, message: str):
        super().__init__(message)
        self.law = law


def must_be(value: object, kind: type | tuple[type, ...], what: str, mend: str) -> None:
    """A `WrongType` that says what an argument must be, unless it is of that kind."""
    if not isinstance(value, kind):
        raise WrongType(f"{what} must be {mend}, not {value!r}")


def at_least(least: int, **counts: object) -> None:
    """A `WrongType` for an argument that is no whole number of at least `least`."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise WrongType(f"{name} must be a whole number of at least {least}, not {value!r}")


def chosen(laws: Iterable[str] | None, legal: Collection[str], whose: str) -> set[str]:
    """The names of the laws to check, all of them if None."""
    if laws is not None and (isinstance(laws, str) or not isinstance(laws, Iterable)):
        raise WrongType(f"laws must be None or a list of names, as [{min(legal)!r}], not {laws!r}")
    names = set(legal if laws is None else laws)
    if unknown := names - set(legal):
        raise UnknownName(f"law of a {whose}", min(unknown, key=str), legal)
    return names


Means = dict[str, tuple[Tensor, float]]
"""By name a function of independent draws (n,), and its exact expectation."""


def farthest(means: Means) -> tuple[float, str]:
    """The mean that is farthest from its expectation: by how many standard errors, and a clause that says so."""
    worst, said = -1.0, ""
    for name, (values, truth) in means.items():
        mean, se = float(values.mean()), float(values.std()) / math.sqrt(len(values))
        z = abs(mean - truth) / se if se > 0 else 0.0 if math.isclose(mean, truth, rel_tol=ROUNDING) else math.inf
        z = math.inf if math.isnan(z) else z
        if z > worst:
            worst, said = z, f"the mean of {name} is {mean:.5g} and should be {truth:.5g} +- {se:.2g}"
    return worst, said


def p_value(count: Tensor, expected: Tensor, freedom: int) -> float:
    """The p-value of the chi-square statistic of counts, where `expected` are expected."""
    return float(chi_squared_tail(((count - expected).square() / expected).sum(), freedom))


def deviation(p: float) -> float:
    """The normal deviation whose two-sided p-value is `p`."""
    return abs(NormalDist().inv_cdf(max(min(p, 1.0), 1e-300) / 2))


def first_difference(a: Tensor, b: Tensor, *, exact: bool) -> int | None:
    """The first row in which two tensors (N, ...) differ, bit for bit or by more than rounding; None if none does."""
    same = (a == b) | (a.isnan() & b.isnan()) if exact else torch.isclose(a, b, ROUNDING, ROUNDING, equal_nan=True)
    rows = torch.nonzero(~same.reshape(len(same), -1).all(1))
    return int(rows[0, 0]) if len(rows) else None
