"""Finding out how a user's log-likelihood wants to be called: for a batch of points, or for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.errors import MotesError, ShapeError
from motes.density.parameters import Parameters, Values
from motes.rng import Rng

LogLikelihood = Callable[[Any], Tensor]
"""Maps `Values` to (N,) nats, or those of one point to a number."""


def batched(log_likelihood: LogLikelihood, parameters: Parameters, vectorised: bool | None) -> LogLikelihood:
    """`log_likelihood` as a function of a batch of points that returns (N,).

    Args:
        vectorised: whether it takes a batch; None tries both on a few draws from the prior.

    Raises:
        ShapeError: it fits neither, or both with different values.
    """
    single = torch.func.vmap(log_likelihood)
    if vectorised is not None:
        return log_likelihood if vectorised else single
    # two batch sizes, none of which is the dimension, so that no shape fits by accident
    sizes = [m for m in (3, 4, 5, 6) if m != parameters.dim][:2]
    points, _, _ = parameters.constrain(parameters.sample(Rng(0).at("probe"), max(sizes)))
    many = [_attempt(log_likelihood, tree.take(points, torch.arange(m)), (m,)) for m in sizes]
    one = [_attempt(log_likelihood, tree.map_leaves(lambda v, i=i: v[i], points), ()) for i in range(max(sizes))]
    takes_many = all(isinstance(v, Tensor) for v in many) and _agree(many[0], many[1][: sizes[0]])
    takes_one = all(isinstance(v, Tensor) for v in one)
    if takes_one and not takes_many:
        mapped = _attempt(single, points, (max(sizes),))
        if isinstance(mapped, Tensor):
            return single
        raise ShapeError(
            f"log_likelihood takes one point, and torch.func.vmap cannot batch it: {mapped}. Write it for a batch: "
            "parameters with a first axis of N points, the result (N,)"
        )
    if takes_many and takes_one and not all(_agree(many[-1][i], one[i]) for i in range(sizes[-1])):
        raise ShapeError(
            "log_likelihood accepts a batch of points and a single point, and gives different values: "
            f"{float(many[-1][0])} against {float(one[0])} for the first point. Say vectorised=True if it takes a "
            "batch, vectorised=False if it takes one point"
        )
    if takes_many:
        return log_likelihood
    raise ShapeError(
        f"log_likelihood must map a batch of points {_shapes(points)} to shape (N,), or one point to a number. "
        f"With {sizes[0]} points: {_said(many[0])}. With one point: {_said(one[0])}"
    )


def _attempt(f: LogLikelihood, points: Values, shape: tuple[int, ...]) -> Tensor | str:
    """What `f` returns if that has the right shape, else what was wrong."""
    try:
        value = f(points)
    except MotesError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code may fail in any way when it is called the way it was not written for
        return f"it raised {type(error).__name__}: {error}"
    if not isinstance(value, Tensor):
        return f"it returned a {type(value).__name__}, not a tensor"
    if tuple(value.shape) != shape:
        return f"it returned shape {tuple(value.shape)}, not {shape}"
    return value.detach()


def _agree(a: Tensor | str, b: Tensor | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return False
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True))


def _said(value: Tensor | str) -> str:
    return value if isinstance(value, str) else "it returned values that change with the other points of the batch"


def _shapes(points: Values) -> str:
    if isinstance(points, Tensor):
        return f"(N, {', '.join(map(str, points.shape[1:]))})"
    return "{" + ", ".join(f"{k}: (N{''.join(f', {s}' for s in v.shape[1:])})" for k, v in points.items()) + "}"
