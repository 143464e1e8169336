"""The performance of a rare event: a function of the parameters that is large in the event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.errors import FileError, NanLogPotential, ShapeError, name_particles
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
    bad = ~torch.isclose(saved["performance"], now, rtol=1e-6, atol=1e-9)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise FileError(
            f"the performance of particle {i} was {float(saved['performance'][i]):.6g} when the run was saved and is "
            f"{float(now[i]):.6g} now: resume with the function that began it"
        )
