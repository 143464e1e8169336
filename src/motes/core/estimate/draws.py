"""What a mean is the mean of: a function of the draws, a parameter by its name, one number of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.core.tree import PyTree
from motes.errors import MotesError, ShapeError, UnknownName, name_particles

Function = Callable[[Any], Tensor] | str | None

COORDINATE = re.compile(r"(?P<name>.*)\[(?P<place>\s*-?\d+\s*(,\s*-?\d+\s*)*)\]")
"""`theta[2]` or `theta[0, 1]`."""


def values(view: PyTree, f: Function, alive: Tensor) -> Tensor:
    """(N, ...) float64 what `f` says of a view with one first axis, zero where a draw has no weight.

    Args:
        f: a function of the view, the name of a parameter or of one number in it; None where the view is one tensor.
        alive: (N,) bool, which draws have weight.

    Raises:
        ShapeError: what `f` returns has not the draws as its first axis.
        UnknownName: no parameter is called so.
        MotesError: it is not finite for draws that have weight, or the view is no single tensor and `f` is None.
    """
    if isinstance(f, str):
        value = named(view, f)
    else:
        if f is None and isinstance(view, dict):
            raise MotesError(
                f"say which parameter, as in run.mean('{next(iter(view))}') or run.values(...): {', '.join(view)}"
            )
        value = view if f is None else f(view)
    n = len(alive)
    if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != n:
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(f"mean needs a tensor ({n}, ...), one row a particle, not {what}")
    value = value.to(torch.float64)
    finite = torch.isfinite(value).reshape(n, -1).all(1)
    if not (finite | ~alive).all():
        bad = (alive & ~finite).nonzero().flatten().tolist()
        raise MotesError(f"f is not finite for {name_particles(bad)} of positive weight")
    return torch.where(alive.view(-1, *[1] * (value.ndim - 1)), value, 0)


def named(view: PyTree, name: str) -> Any:
    """The parameter of that name in a view with one first axis, or the numbers of one place in it.

    Raises:
        UnknownName: no parameter is called so.
        MotesError: it has no such place.
    """
    known = {str(k): v for k, v in view.items()} if isinstance(view, dict) else {}
    if isinstance(view, Tensor):
        known = {"x": view}
    if name in known:
        return known[name]
    found = COORDINATE.fullmatch(name)
    if found is None or found["name"] not in known:
        raise UnknownName("parameter", name if found is None else found["name"], known)
    value: Any = known[found["name"]]
    place = tuple(int(i) for i in found["place"].split(","))
    shape = tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
    if len(place) > len(shape) or any(not -k <= i < k for i, k in zip(place, shape, strict=False)):
        holds = f"has shape {shape} in each draw" if shape else "is one number in each draw"
        raise MotesError(f"there is no {name}: {found['name']} {holds}, and places count from 0")
    return value[(slice(None), *place)]
