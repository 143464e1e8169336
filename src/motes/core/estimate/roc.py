"""How well a number tells two groups apart, as wrong answers from right ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError


@dataclass(frozen=True)
class Auroc:
    """The area under the receiver operating characteristic.

    It is no `Estimate`: its interval is made on the logit scale, or of the exact binomial bound, and so neither of one
    level for each call nor symmetric about the value.

    Attributes:
        value: the probability that a wrong answer has the larger number, ties counting half.
        se: DeLong's standard error.
        low: the lower end of the 95 % interval, made on the logit scale.
        high: the upper end.
    """

    value: float
    se: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auroc(number: Tensor, wrong: Tensor) -> Auroc:
    """The area for an uncertainty `number` (N,) and whether the answer was `wrong` (N,) bool.

    References:
        DeLong, DeLong & Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 44; intervals on the logit scale: Pepe (2003), section 5.2.

    Raises:
        ShapeError: the shapes do not fit.
        MotesError: fewer than two answers are right or wrong, or a number is NaN.
    """
    number, wrong = torch.as_tensor(number, dtype=torch.float64), torch.as_tensor(wrong).bool()
    if number.ndim != 1 or number.shape != wrong.shape:
        raise ShapeError(f"numbers and errors must be (N,) both, not {tuple(number.shape)} and {tuple(wrong.shape)}")
    x, y = number[wrong], number[~wrong]
    if min(len(x), len(y)) < 2 or torch.isnan(number).any():
        raise MotesError(f"an area needs two wrong and two right answers and no NaN; here {len(x)} and {len(y)}")
    above = (x[:, None] > y[None, :]).double() + 0.5 * (x[:, None] == y[None, :]).double()
    value = float(above.mean())
    se = math.sqrt(float(above.mean(1).var()) / len(x) + float(above.mean(0).var()) / len(y))
    if not 0 < value < 1:  # no spread is seen: the exact binomial bound for as many trials as the smaller group has
        edge = 1 - 0.025 ** (1 / min(len(x), len(y)))
        return Auroc(value, se, max(0.0, value - edge), min(1.0, value + edge))
    centre, half = math.log(value / (1 - value)), 1.959964 * se / (value * (1 - value))
    return Auroc(value, se, 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre)))
