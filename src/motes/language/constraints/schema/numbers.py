"""JSON numbers, character by character, and which of them a schema lets pass, however they are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from math import ceil, floor

FORMS = {
    "": {"-": "-", "0": "0", "d": "i"},
    "-": {"0": "0", "d": "i"},
    "0": {".": ".", "e": "e"},
    "i": {"0": "i", "d": "i", ".": ".", "e": "e"},
    ".": {"0": "f", "d": "f"},
    "f": {"0": "f", "d": "f", "e": "e"},
    "e": {"-": "s", "+": "s", "0": "x", "d": "x"},
    "s": {"0": "x", "d": "x"},
    "x": {"0": "x", "d": "x"},
}
"""What may follow within a number, by where it stands: a sign, zero, whole digits, a point, a fraction, an exponent."""
ENDS = frozenset("0ifx")
CHARS = {ord(c): c for c in "-+.eE0123456789"}
LISTED = 2000
"""A range that holds no more multiples than this is a list of them."""
LONGEST = 400
"""Digits beyond which a number whose value matters is not followed any further."""


def form(text: str) -> str:
    """Where a number that is written so far stands."""
    at = ""
    for c in text:
        at = FORMS[at][kind(c)]
    return at


def kind(char: str) -> str:
    return "d" if char in "123456789" else "e" if char == "E" else char


def exact(value: float | int) -> Decimal:
    """A number of a schema as it is written."""
    return Decimal(repr(value) if isinstance(value, float) else value)


@dataclass(frozen=True)
class Numbers:
    """The numbers that pass: in an interval, whole ones, multiples, or out of a list. All spellings of a value count.

    Attributes:
        low, high: the bounds; None: there is none.
        open_low, open_high: whether the bound itself is left out.
        whole: whether only whole numbers pass (1, 1.0 and 10e-1 are the same number).
        steps: what they have to be multiples of.
        values: the only ones; None: any.
    """

    low: Decimal | None = None
    high: Decimal | None = None
    open_low: bool = False
    open_high: bool = False
    whole: bool = False
    steps: tuple[Decimal, ...] = ()
    values: tuple[Decimal, ...] | None = None

    @property
    def free(self) -> bool:
        """Whether every number passes."""
        return self == Numbers()

    def both(self, other: Numbers) -> Numbers | None:
        """The numbers that pass both; None: none do."""
        out = self
        for bound in ("low", "high"):
            mine, theirs = getattr(out, bound), getattr(other, bound)
            if theirs is None or (mine is not None and (mine > theirs if bound == "low" else mine < theirs)):
                continue
            shut = getattr(other, f"open_{bound}") or (mine == theirs and getattr(out, f"open_{bound}"))
            out = replace(out, **{bound: theirs, f"open_{bound}": shut})
        values = out.values if other.values is None else other.values
        if out.values is not None and other.values is not None:
            values = tuple(v for v in out.values if v in other.values)
        steps = tuple(dict.fromkeys((*out.steps, *other.steps)))
        return replace(out, whole=out.whole or other.whole, steps=steps, values=values).thinned()

    def thinned(self) -> Numbers | None:
        """The same with what a list leaves; None if nothing is left."""
        if self.values is not None:
            fits = tuple(v for v in self.values if self.passes(v))
            return Numbers(values=fits) if fits else None
        if self.low is None or self.high is None:
            return self
        if self.low > self.high or (self.low == self.high and (self.open_low or self.open_high)):
            return None
        step = max(self.steps, default=Decimal(1) if self.whole else None)
        if step is None:
            return self
        least, most = ceil(Fraction(self.low) / Fraction(step)), floor(Fraction(self.high) / Fraction(step))
        if most - least < (LISTED if self.steps else 2):
            few = tuple(v for k in range(least, most + 1) if self.passes(v := step * k))
            return (Numbers(values=few) if self.steps else self) if few else None
        return self

    def passes(self, value: Decimal) -> bool:
        """Whether a value does."""
        if self.values is not None and value not in self.values:
            return False
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        if self.high is not None and (value > self.high or (self.open_high and value == self.high)):
            return False
        return (not self.whole or is_whole(value)) and all(is_multiple(value, step) for step in self.steps)

    # ------------------------------------------------------------ as it is written

    def step(self, state: str, char: int) -> str | None:
        """Where a number stands with one more character; None where nothing can come of it.

        The state is the number so far, or, where its value does not matter, the kind of its last character.
        """
        if char not in CHARS:
            return None
        if self.free:
            return FORMS[state].get(kind(CHARS[char]))
        text = state + CHARS[char]
        if kind(text[-1]) not in FORMS[form(state)] or len(text) > LONGEST or not hope(self, text):
            return None
        return text

    def accepts(self, state: str) -> bool:
        """Whether it may end there."""
        if self.free:
            return state in ENDS
        value = number(state) if form(state) in ENDS else None
        return value is not None and self.passes(value)


def number(text: str) -> Decimal | None:
    """The value of a number; None if its exponent is out of all reason."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def is_whole(value: Decimal) -> bool:
    digits, exponent = stripped(value)
    return not digits or exponent >= 0


def is_multiple(value: Decimal, step: Decimal) -> bool:
    if not value:
        return True
    if abs(value.adjusted()) > LONGEST:
        return False
    with localcontext() as context:
        context.prec = 3 * LONGEST
        return not value % step


def stripped(value: Decimal) -> tuple[str, int]:
    """The digits of a number without zeros at either end, and the exponent behind them; "" for zero."""
    _, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    short = text.rstrip("0")
    assert isinstance(exponent, int)
    return short, exponent + len(text) - len(short)


def hope(numbers: Numbers, text: str) -> bool:
    """Whether what is written of a number can be continued to one that passes; never False where it can."""
    negative = text.startswith("-")
    at = form(text)
    body = text.removeprefix("-")
    mantissa, _, exponent = body.replace("E", "e").partition("e")
    digits = mantissa.replace(".", "").lstrip("0")
    if at in ("e", "s", "x"):
        return _exponent(numbers, text, negative, Decimal(mantissa), exponent)
    zero = numbers.passes(Decimal(0))
    if at == "0" and zero:
        return True
    if not digits:
        return zero or any(_begins(numbers, negative, d) for d in "123456789")
    return _begins(numbers, negative, digits)


def _interval(numbers: Numbers, negative: bool) -> tuple[Decimal, Decimal | None] | None:
    """The sizes that numbers of a sign can have: from, up to (None: any); None: no number but zero has the sign."""
    low, high = (numbers.low, numbers.high)
    if negative:
        low, high = (None if high is None else -high), (None if low is None else -low)
    if high is not None and high <= 0:
        return None
    return max(low or Decimal(0), Decimal(0)), high


def _begins(numbers: Numbers, negative: bool, digits: str) -> bool:
    """Whether some number that passes begins with these digits, wherever its point is."""
    if numbers.values is not None:
        fits = [stripped(v)[0] for v in numbers.values if v and (v < 0) == negative]
        return any(v.startswith(digits) or (digits.startswith(v) and not digits[len(v) :].strip("0")) for v in fits)
    found = _interval(numbers, negative)
    if found is None:
        return False
    low, high = found
    if high is None or (low == 0 and not numbers.whole):
        return True
    most = high.adjusted() + 1
    if most > LONGEST:
        return True
    first, size = int(digits), len(digits)
    if not numbers.whole:
        least = low.adjusted() + 1
        ranges = (
            (Decimal(first).scaleb(places - size), Decimal(first + 1).scaleb(places - size))
            for places in range(least, most + 1)
        )
        return any(a <= high and b > low for a, b in ranges)
    for places in range(1, most + 1):
        if places >= size:
            a, b = first * 10 ** (places - size), (first + 1) * 10 ** (places - size) - 1
        elif first % 10 ** (size - places):
            continue
        else:
            a = b = first // 10 ** (size - places)
        if a <= high and b >= low and max(a, ceil(low)) <= min(b, floor(high)):
            return True
    return False


def _exponent(numbers: Numbers, text: str, negative: bool, mantissa: Decimal, exponent: str) -> bool:
    """Whether some exponent that begins so makes a number that passes."""
    if not mantissa:
        return numbers.passes(Decimal(0))
    signs = (1, -1) if exponent == "" else (-1,) if exponent.startswith("-") else (1,)
    shown = exponent.lstrip("+-")
    if numbers.values is None:
        found = _interval(numbers, negative)
        if found is None:
            return False
        low, high = found
        tail = stripped(mantissa)[1]
        top = None if high is None else high.adjusted() - mantissa.adjusted() + 1
        bottom = -tail if numbers.whole else None
        if low > 0:
            bottom = max(low.adjusted() - mantissa.adjusted() - 1, bottom if bottom is not None else -(10**18))
    else:
        powers = [v.adjusted() - mantissa.adjusted() for v in numbers.values if v and (v < 0) == negative]
        if not powers:
            return False
        bottom, top = min(powers), max(powers)
    if top is None or bottom is None:
        unbounded = {1: top is None, -1: bottom is None}
        if any(unbounded[s] for s in signs):
            return True
    signed = mantissa.copy_sign(Decimal(-1 if negative else 1))
    reach = 2 * LONGEST
    low_power = -reach if bottom is None else bottom
    high_power = reach if top is None else top
    if high_power - low_power > reach:
        return True
    with localcontext() as context:
        context.prec = 3 * LONGEST
        for power in range(low_power, high_power + 1):
            if power and (-1 if power < 0 else 1) not in signs:
                continue
            if shown.strip("0") and not str(abs(power)).startswith(shown.lstrip("0")):
                continue
            if numbers.passes(signed.scaleb(power)):
                return True
    return False
