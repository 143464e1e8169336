"""The performance of a rare event: a function of the parameters that is large in the event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from motes.core.files.resuming import must_agree
from motes.errors import NanLogPotential, ShapeError, name_particles
from motes.kernels import State
from motes.laws.law import Law
from motes.laws.parameters import Values

Performance = Callable[[Any], Tensor]
"""Maps the parameters of N points, as the user means them, to numbers (N,)."""


def performances(performance: Performance, values: Values, n: int) -> Tensor:
    """(N,) float64 performances of N points.

    Raises:
        ShapeError: there is not one number a point.
        NanLogPotential: a performance is NaN.
    """
    found = performance(values)
    if not isinstance(found, Tensor) or tuple(found.shape) != (n,):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ShapeError(
            f"performance must map {n} points to ({n},), not {what}; write it for a batch, or use torch.func.vmap"
        )
    found = found.detach().double()
    bad = found.isnan().nonzero().flatten().tolist()
    if bad:
        raise NanLogPotential(
            f"performance is NaN for {name_particles(bad)}: give -inf to a point that cannot be in the event"
        )
    return found


def same_performance(performance: Performance, density: Law, saved: State) -> None:
    """The performance still says of the saved positions what their file says.

    Raises:
        FileError: it has changed since.
    """
    now = performances(performance, density.constrain(saved["position"]), len(saved["position"]))
    must_agree("performance", now, saved["performance"], "the function that began it", rtol=1e-6, atol=1e-9)
