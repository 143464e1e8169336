"""The Beta distribution: its distribution function, its quantiles and its shortest intervals, in float64."""

from __future__ import annotations

import math

from motes.errors import MotesError, check_name

KINDS = ("equal-tailed", "shortest")
ACCURACY = 1e-15


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X <= x) for X ~ Beta(a, b), by the continued fraction for the incomplete beta function.

    References:
        Didonato & Morris (1992), Algorithm 708, ACM TOMS 18(3), eq. (9).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta(a, b)) / a
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 10_000):  # Lentz's evaluation: two terms of the fraction a round
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < ACCURACY:
            break
    return min(front * value, 1.0)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with P(X <= x) = p, by bisection to the last bits."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if beta_cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def beta_interval(a: float, b: float, *, level: float = 0.95, kind: str = "equal-tailed") -> tuple[float, float]:
    """An interval that holds `level` of Beta(a, b).

    Args:
        a: first parameter, positive.
        b: second parameter, positive.
        level: between 0 and 1.
        kind: "equal-tailed" leaves (1 - level) / 2 on either side; "shortest" is the one of highest density. For a
            density that falls or rises throughout, it begins at 0 or ends at 1.

    Raises:
        MotesError: a parameter is not positive, or both are below 1 and the shortest set is no interval.
    """
    check_level(level, kind)
    if not (a > 0 and b > 0 and math.isfinite(a + b)):
        raise MotesError(f"Beta({a}, {b}): both parameters must be positive and finite")
    if kind == "equal-tailed":
        return beta_quantile((1 - level) / 2, a, b), beta_quantile((1 + level) / 2, a, b)
    if a < 1 and b < 1:
        raise MotesError(f"the density of Beta({a}, {b}) is highest at both ends: ask for the equal-tailed interval")
    if a == b == 1:
        return (1 - level) / 2, (1 + level) / 2
    if a <= 1:
        return 0.0, beta_quantile(level, a, b)
    if b <= 1:
        return beta_quantile(1 - level, a, b), 1.0
    # the lower tail at which both ends have the same density; the difference of log-densities falls along it
    low, high = 0.0, 1 - level
    for _ in range(60):
        tail = 0.5 * (low + high)
        ends = beta_quantile(tail, a, b), beta_quantile(tail + level, a, b)
        rise = (a - 1) * math.log(ends[1] / max(ends[0], 1e-300)) + (b - 1) * (
            math.log1p(-min(ends[1], 1 - 1e-16)) - math.log1p(-ends[0])
        )
        low, high = (tail, high) if rise > 0 else (low, tail)
    return beta_quantile(0.5 * (low + high), a, b), beta_quantile(0.5 * (low + high) + level, a, b)


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def check_level(level: float, kind: str = "equal-tailed") -> None:
    if not 0 < level < 1:
        raise MotesError(f"level must lie between 0 and 1, as 0.95, not {level!r}")
    check_name("kind of interval", kind, KINDS)
