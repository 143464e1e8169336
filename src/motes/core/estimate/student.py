"""Quantiles of Student's t, for error bars that rest on few independent values."""

from __future__ import annotations

import math
from statistics import NormalDist

from motes.errors import MotesError

TINY = 1e-300


def quantile(level: float, freedom: float) -> float:
    """The t at which P(|T| < t) = `level`, T Student with `freedom` degrees; infinitely many are the normal law.

    Args:
        level: in (0, 1).
        freedom: above 0, not necessarily whole.

    Raises:
        ValueError: `level` or `freedom` is outside of its range.
    """
    if not 0 < level < 1:
        raise MotesError(f"the level of an interval must lie in (0, 1), not {level!r}")
    if not freedom > 0:
        raise MotesError(f"degrees of freedom must be above 0, not {freedom!r}")
    normal = -NormalDist().inv_cdf((1 - level) / 2)
    if math.isinf(freedom):
        return normal
    low, high = math.log(normal) - 1.0, math.log(normal) + 1.0
    while beyond(math.exp(high), freedom) > 1 - level:
        high += 1.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if beyond(math.exp(middle), freedom) > 1 - level else (low, middle)
    return math.exp(0.5 * (low + high))


def beyond(t: float, freedom: float) -> float:
    """P(|T| > t) = I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2), to about 14 digits of itself."""
    a, b = freedom / 2, 0.5
    x, rest = freedom / (freedom + t * t), t * t / (freedom + t * t)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (Press et al., section 6.4)."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1) or TINY)
    value = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + step * d or TINY)
            c = 1.0 + step / c or TINY
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value
