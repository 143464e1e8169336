"""What the knobs of rules must satisfy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.errors import MotesError, check_whole
from motes.language.models.model import LanguageModel, check_prompt
from motes.language.rule import Rule, SeenTokens


def number(
    rule: str, name: str, value: object, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    """`value` is a number in the interval; infinite bounds are always open."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if good and isinstance(value, (int, float)):
        good = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not good:
        left = "(" if open_low or low == -math.inf else "["
        right = ")" if open_high or high == math.inf else "]"
        raise MotesError(f"{name} of {rule} must be a number in {left}{low:g}, {high:g}{right}, not {value!r}")


def whole(rule: str, name: str, value: object, low: int) -> None:
    """`value` is a whole number of at least `low`."""
    check_whole(low, **{f"{name} of {rule}": value})


def tokens(rule: str, numbers: object) -> None:
    """`numbers` are the numbers of tokens, at least one."""
    if not isinstance(numbers, (tuple, list)) or not numbers:
        raise MotesError(f"tokens of {rule} must be a tuple of at least one token number, not {numbers!r}")
    for token in numbers:
        whole(rule, "a token", token, 0)


def mask(rule: str, numbers: tuple[int, ...], vocabulary: int) -> Tensor:
    """(V,) bool: the tokens of these numbers."""
    if max(numbers) >= vocabulary:
        raise MotesError(f"{rule} names the token {max(numbers)}, but the model has only 0..{vocabulary - 1}")
    out = torch.zeros(vocabulary, dtype=torch.bool)
    out[list(numbers)] = True
    return out


def context(rule: str, value: object, other: object) -> None:
    """`value` is a prompt to compare with, and `other` the model that reads it, or None."""
    try:
        check_prompt(value)
    except MotesError as error:
        raise MotesError(f"the context of {rule}, with which it compares, comes first: {error}") from error
    if other is not None:
        model(rule, "other", other)


def model(rule: str, name: str, value: object) -> None:
    """`value` is a language model."""
    if not isinstance(value, LanguageModel):
        raise MotesError(f"{name} of {rule} must be a model, as from motes.language.load, not {value!r}")


def needs_run(rule: Rule, seen: SeenTokens | None) -> SeenTokens:
    """What is known of the rows, which this rule cannot do without."""
    if seen is None:
        raise MotesError(f"{type(rule).__name__} looks at the text so far: it needs a run, and cannot be called alone")
    return seen
