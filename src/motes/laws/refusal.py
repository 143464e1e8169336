"""Points at which a user's function raises an error instead of returning a number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.kernels import State

RAISED = (ArithmeticError, ValueError, RuntimeError)
"""What bad points raise: a matrix that is not positive definite (a RuntimeError in torch, a ValueError in NumPy), a
parameter that a distribution refuses (ValueError), a division by zero (ArithmeticError)."""
NEVER = (MotesError, NotImplementedError, RecursionError, torch.OutOfMemoryError)
"""What is no matter of points."""


def is_refusal(error: BaseException) -> bool:
    """Whether an error may be due to the point at which a function was called."""
    return isinstance(error, RAISED) and not isinstance(error, NEVER)


def refused(f: Callable[[Tensor], object], z: Tensor) -> Tensor:
    """(N,) the points of z (N, d) at which `f` raises, found by bisection of the batch."""
    bad = torch.zeros(len(z), dtype=torch.bool)
    parts = [torch.arange(len(z))]
    while parts:
        index = parts.pop()
        try:
            f(z[index])
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(index) == 1:
                bad[index] = True
            else:
                parts.extend(index.tensor_split(2))
    return bad


def spared(
    f: Callable[[Tensor], State], z: Tensor, legal: Callable[[], Tensor], eager: Callable[[Tensor], State] | None = None
) -> tuple[State, Exception | None]:
    """f(z), with a log-likelihood of NaN at the points at which `f` raises, and the error that it raised.

    These points are replaced by one that is legal and the batch is evaluated again, so that the size of the batch, and
    with it the bits of the others, stay what they are.

    Args:
        f: maps points (N, d) to tensors (N, ...), "log_likelihood" among them.
        legal: makes a point (1, d) at which `f` returns a number.
        eager: `f` for batches of any size; None is `f`.

    Raises:
        Exception: what `f` raised, if it raises at the legal point too, or at the batch and at none of its parts.
    """
    try:
        return f(z), None
    except Exception as error:
        if not is_refusal(error):
            raise
        raised = error
    eager = eager or f
    bad, point = refused(eager, z), legal()
    if not bad.any() or refused(eager, point).any():
        raise raised
    state = f(torch.where(bad[:, None], point.to(z), z))
    for name, value in state.items():
        if name.startswith("log_"):
            state[name] = torch.where(bad, torch.nan, value) if name == "log_likelihood" else value
        elif name.endswith("gradient"):
            state[name] = torch.where(bad.view(-1, *[1] * (value.ndim - 1)), 0.0, value)
    return state, raised
