"""How numbers are written: values with their error bar, counts, durations, probabilities."""

from __future__ import annotations

import math
import unicodedata

MINUS = "\N{MINUS SIGN}"
INFINITY = "\N{INFINITY}"
THIN = "\N{THIN SPACE}"
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def plain(value: float, digits: int = 4) -> str:
    """`value` to `digits` significant digits, without an exponent where that stays short."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}{INFINITY}"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if -4 <= magnitude < max(digits, 6):
        text = f"{value:,.{max(digits - 1 - magnitude, 0)}f}"
        return text.replace("-", MINUS)
    mantissa, exponent = f"{value:.{min(digits, 3) - 1}e}".split("e")
    return f"{mantissa}{THIN}×{THIN}10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", MINUS)


def with_error(value: float, error: float) -> tuple[str, str]:
    """`value` and `error` to the same decimal place, that of the second significant digit of the error.

    An error that is no positive number is returned as "" and the value gets two decimals.
    """
    if not math.isfinite(value):
        return plain(value), ""
    if not (math.isfinite(error) and error > 0):
        return f"{value:,.2f}".replace("-", MINUS), ""
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:,.{decimals}f}".replace("-", MINUS), f"{error:,.{decimals}f}"


def probability(log_probability: float, digits: int = 3) -> str:
    """exp(`log_probability`), written without underflow."""
    if math.isnan(log_probability) or math.isinf(log_probability):
        return "0" if log_probability == -math.inf else plain(log_probability)
    if -9 < log_probability < 14:
        return plain(math.exp(log_probability), digits)
    power = log_probability / math.log(10)
    exponent = math.floor(power)
    mantissa = f"{10 ** (power - exponent):.{digits - 1}f}"
    if mantissa.startswith("10"):
        mantissa, exponent = f"{1:.{digits - 1}f}", exponent + 1
    return f"{mantissa}{THIN}×{THIN}10{str(exponent).translate(_SUPERSCRIPT)}"


def count(n: float) -> str:
    """A count with thousands separated; one decimal below ten if it is no integer."""
    if not math.isfinite(n):
        return plain(n)
    return f"{n:,.0f}" if n >= 10 or n == round(n) else f"{n:,.1f}"


def percent(share: float) -> str:
    """A share of one as per cent; small but positive shares do not become 0."""
    if not math.isfinite(share):
        return plain(share)
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def seconds(s: float) -> str:
    """A duration in the unit that a reader would choose."""
    if not math.isfinite(s):
        return plain(s)
    if s < 0.0995:
        return f"{1000 * s:.0f} ms" if s >= 0.0005 or s == 0 else "< 1 ms"
    if s < 9.95:
        return f"{s:.1f} s"
    whole = round(s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def width(text: str) -> int:
    """The columns that `text` takes in a terminal: wide letters two, combining marks none."""
    columns = 0
    for letter in text:
        if unicodedata.combining(letter) or unicodedata.category(letter) in ("Cf", "Mn", "Me"):
            continue
        columns += 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
    return columns
