"""An expectation with its error bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from motes.core.estimate import student

SHOWN = 8
"""Numbers of each axis that an estimate shows."""


@dataclass(frozen=True)
class Estimate:
    """An expectation with its Monte Carlo standard error.

    Attributes:
        value: the weighted mean, shape of f(x) without the particles' axis.
        se: its standard error, same shape; NaN where the run cannot give one.
        reason: why `se` is NaN (somewhere), empty otherwise.
        freedom: on how many degrees of freedom `se` rests: infinity where it counts as known.
    """

    value: Tensor
    se: Tensor
    reason: str = ""
    freedom: float = math.inf

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends of the central interval of that level, by Student's t; NaN where there is no error bar."""
        reach = student.quantile(level, self.freedom) * self.se
        return self.value - reach, self.value + reach

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        shown = _rows(self.value, self.se)
        return f"{shown}, no error bar: {self.reason}" if self.reason else shown


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
