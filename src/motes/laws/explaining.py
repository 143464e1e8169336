"""Why a user's log-likelihood raised: in its own words at one point, and with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.errors import MotesError

ALONE = 8
"""Points at which a function that raised is called alone, at most."""
NOISE = re.compile(
    r"(, )?\s*(please file an issue at \S+( \.)?|If error is occurring somewhere inside PyTorch internals.*)", re.DOTALL
)
"""What PyTorch asks its own users to do."""
BRANCH = "replace a Python `if` on a parameter by torch.where(condition, a, b)"
MENDS = {
    "data-dependent control flow": BRANCH,
    "Boolean value of Tensor with more than one value": BRANCH,
    ".item()": "a parameter was made a Python number, by .item(), float() or an `if`: compute with tensors, and "
    + BRANCH,
    "numpy()": "write it with torch operations; or, where there are none, say vectorised=True, begin with "
    ".detach().numpy() and sample with a kernel that needs no gradients, like RandomWalk",
    "doesn't have storage": "NumPy cannot be called under torch.func.vmap: write it with torch operations, or for a "
    "batch, with vectorised=True",
    "randomness error mode": "a log-likelihood must be a function of its parameters: draw no random numbers in it",
    "found invalid values": "look for NaN in the data, and for parameters out of a distribution's range, like a "
    "negative scale (a prior such as HalfNormal keeps it positive)",
}


def cleaned(error: BaseException) -> str:
    """`it raised RuntimeError: ...` in one line, without what concerns the developers of PyTorch, and with a mend."""
    text = NOISE.sub("", " ".join(str(error).split())).rstrip(" .,")
    return f"it raised {type(error).__name__}: {text}{mend(str(error))}"


def mend(text: str) -> str:
    """What to do about an error with this text, as a sentence to be appended; empty if that is not known."""
    return next((f". {how[0].upper()}{how[1:]}" for sign, how in MENDS.items() if sign in text), "")


def failure(f: Callable[[Any], Any], points: Any, n: int, vectorised: bool, error: Exception) -> MotesError:
    """The error to raise where `f` raised `error` for n points, which says what `f` itself raises at one of them.

    Args:
        f: the user's function, not batched.
        points: the parameters, tensors (n, ...).
        vectorised: whether it was called with all points at once; else it was batched by `torch.func.vmap`.
    """
    found = alone(f, points, n)
    how = f"with {n} points at once" if vectorised else f"under torch.func.vmap, with {n} points"
    if isinstance(found, Exception):
        if vectorised:
            said = f"log_likelihood was called {how}: {cleaned(error)}"
            return MotesError(said if str(found) == str(error) else f"{said}. Called with one point, {cleaned(found)}")
        return MotesError(f"log_likelihood was called with one point: {cleaned(found)}")
    said = f"log_likelihood was called {how}: {cleaned(error)}"
    if isinstance(found, Tensor) and vectorised and found.ndim == 0 and not mend(str(error)):
        return MotesError(f"{said}. With one point it returns a number: say vectorised=False, or leave that out")
    return MotesError(said)


def alone(f: Callable[[Any], Any], points: Any, n: int) -> Any:
    """What `f` raises at the first of some points at which it raises, called with one point; else what it returns."""
    value = None
    for i in range(min(n, ALONE)):
        try:
            with torch.no_grad():
                value = f(tree.map_leaves(lambda v, i=i: v[i].detach(), points))
        except Exception as error:  # noqa: BLE001 the user's code may fail in any way
            return error
    return value
