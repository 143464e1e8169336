"""What an estimate is: a value with its standard error, and what is known of both."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from motes.core.estimate import student
from motes.errors import ShapeError

SHOWN = 8
"""Numbers of each axis that an estimate shows."""
UNTOLD = "its spread came out as NaN: look for values or weights that are NaN or infinite"
"""The reason of an estimate without an error that names no other."""
Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Estimate(Generic[Number]):
    """An estimate with its Monte Carlo standard error: a number, or a tensor of numbers with an error each.

    Attributes:
        value: the estimate; of a mean, shape of f(x) without the particles' axis.
        se: its standard error, like `value`; NaN where the draws cannot give one.
        reason: why `se` is NaN (somewhere), empty otherwise.
        freedom: on how many degrees of freedom `se` rests: infinity where it counts as known.
        ess: the effective number of draws behind it; NaN where nothing says.
        method: how `se` was found.
        bias: how the value is off on average, in words; empty where it is off by no more than order 1/N.
        parts: what the number is made of, by name (a cluster for each text, a share for each answer).
    """

    value: Number
    se: Number
    reason: str = ""
    freedom: float = math.inf
    _: KW_ONLY
    ess: float = math.nan
    method: str = ""
    bias: str = ""
    parts: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.reason and bool(torch.as_tensor(self.se).isnan().any()):
            object.__setattr__(self, "reason", UNTOLD)

    def interval(self, level: float = 0.95) -> tuple[Number, Number]:
        """The ends of the central interval of that level, by Student's t; NaN where there is no error bar."""
        reach = student.quantile(level, self.freedom) * self.se
        return self.value - reach, self.value + reach

    def doubted(self, reason: str) -> Self:
        """The same without an error, if there is a reason to have none; as it is if `reason` is empty."""
        nothing = torch.full_like(self.se, math.nan) if isinstance(self.se, Tensor) else math.nan
        return replace(self, se=nothing, reason=reason) if reason else self

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        shown = _rows(*(torch.as_tensor(v, dtype=torch.float64) for v in (self.value, self.se)))
        shown += f", no error bar: {self.reason}" if self.reason else ""
        return shown if math.isnan(self.ess) else f"{shown} (ess {self.ess:.1f})"


def _rows(value: Tensor, se: Tensor) -> str:
    """`1.2 ± 0.1`, `[1.2 ± 0.1, ...]`, and a line a row where there are more axes; long ones with their middle cut."""
    if value.ndim == 0:
        error = float(se)
        return f"{float(value):.5g} ± {'?' if math.isnan(error) else f'{error:.2g}'}"
    n = len(value)
    kept = [*range(n)] if n <= SHOWN else [*range(SHOWN - 2), n - 1]
    parts = [_rows(value[i], se[i]) for i in kept]
    if len(kept) < n:
        parts.insert(SHOWN - 2, "...")
    text = (", " if value.ndim == 1 else ",\n ").join(p.replace("\n", "\n ") for p in parts)
    return f"[{text}]" + (f" ({n} numbers)" if len(kept) < n and value.ndim == 1 else "")


def independent_mean(values: Tensor) -> Estimate[Tensor]:
    """The mean of independent draws (n, ...) over the first axis with its standard error, float64.

    Raises:
        ShapeError: there is one draw, or none.
    """
    if len(values) < 2:
        raise ShapeError(f"an error bar needs at least 2 samples, not {len(values)}")
    values = values.detach().double().cpu()
    return Estimate(values.mean(0), values.std(0) / len(values) ** 0.5, method="independent samples")
