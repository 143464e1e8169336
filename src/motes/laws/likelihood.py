"""Finding out how a user's log-likelihood wants to be called: for a batch of points, or for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.errors import MotesError, ShapeError, UnknownName
from motes.laws.explaining import cleaned
from motes.laws.parameters import Parameters, Values
from motes.rng import Rng

LogLikelihood = Callable[[Any], Tensor]
"""Maps `Values` to (N,) nats, or those of one point to a number."""


@dataclass(frozen=True)
class Failed:
    """Why a call came to nothing: in words, with the shape that came out of it, or the error if a name is unknown.

    `refused`: a distribution refused its parameters or the data, so that shapes are not the matter.
    """

    said: str
    shape: tuple[int, ...] = ()
    unknown: UnknownName | None = None
    refused: bool = False

    def __str__(self) -> str:
        return self.said


def batched(log_likelihood: LogLikelihood, parameters: Parameters, vectorised: bool | None) -> LogLikelihood:
    """`log_likelihood` as a function of a batch of points that returns (N,).

    Args:
        vectorised: whether it takes a batch; None tries both on a few draws from the prior.

    Raises:
        ShapeError: it fits neither, or both with different values.
        UnknownName: it asks for a parameter that the prior has not.
    """
    single = torch.func.vmap(log_likelihood)
    if vectorised is not None:
        return log_likelihood if vectorised else single
    # two batch sizes, none of which is the dimension, so that no shape fits by accident
    sizes = [m for m in (3, 4, 5, 6) if m != parameters.dim][:2]
    points, _, _ = parameters.constrain(parameters.sample(Rng(0).at("probe"), max(sizes)))
    many = [_attempt(log_likelihood, tree.take(points, torch.arange(m)), (m,)) for m in sizes]
    one = [_attempt(log_likelihood, tree.map_leaves(lambda v, i=i: v[i], points), ()) for i in range(max(sizes))]
    batches, numbers = [v for v in many if isinstance(v, Tensor)], [v for v in one if isinstance(v, Tensor)]
    takes_many = len(batches) == len(many) and _agree(batches[0], batches[1][: sizes[0]])
    takes_one = len(numbers) == len(one)
    if takes_one and not takes_many:
        if len(batches) == len(many) and all(v.ndim == 1 for _, v in tree.leaves(points)):
            raise ShapeError(
                "log_likelihood accepts a batch of points, and its value at one of them changes with the others: "
                f"{float(batches[0][0])} and {float(batches[1][0])} for the first point. Look for random "
                "numbers, and for a mean, sum or maximum over the first axis, which counts points; or say "
                "vectorised=False if it takes one point"
            )
        mapped = _attempt(single, points, (max(sizes),))
        if isinstance(mapped, Tensor):
            return single
        raise ShapeError(
            f"log_likelihood takes one point, and torch.func.vmap cannot batch it: {mapped}. Write it for a batch: "
            "parameters with a first axis of N points, the result (N,)"
        )
    if takes_many and takes_one and not all(_agree(batches[-1][i], numbers[i]) for i in range(sizes[-1])):
        raise ShapeError(
            "log_likelihood accepts a batch of points and a single point, and gives different values: "
            f"{float(batches[-1][0])} against {float(numbers[0])} for the first point. Say vectorised=True if it takes "
            "a batch, vectorised=False if it takes one point"
        )
    if takes_many:
        return log_likelihood
    for failed in (one[0], many[0]):
        if isinstance(failed, Failed) and failed.unknown is not None:
            raise failed.unknown
    for failed, k in ((one[0], 1), (many[0], sizes[0])):
        if isinstance(failed, Failed) and failed.refused:
            raise MotesError(f"log_likelihood was called with {k} point{'s' * (k > 1)}: {failed}")
    raise ShapeError(
        f"log_likelihood must map a batch of points {_shapes(points)} to shape (N,), or one point to a number. "
        f"With {sizes[0]} points: {_said(many[0])}. With one point: {_said(one[0])}{_advice(many[0], one[0], sizes[0])}"
    )


def must_stand_alone(name: str, f: LogLikelihood, points: Values, value: Tensor) -> None:
    """The values (n,) of `f` at n points are those that it has at the last two alone, and at another call.

    Values may differ by rounding, 1e-5 of the largest (1e-3 where they are no float64).

    Raises:
        MotesError: they are not, so that `f` is no function of its point.
    """
    last = torch.arange(len(value) - 2, len(value))
    with torch.no_grad():
        alone = f(tree.map_leaves(lambda v: v.detach()[last], points))
    value = value.detach()
    if alone.shape != (2,) or _near(alone, value[last], value):
        return
    with torch.no_grad():
        again = f(tree.map_leaves(lambda v: v.detach(), points))
    numbers = f"{float(value[last[0]]):.8g} against {float(alone[0]):.8g}"
    if _near(again, value, value):
        raise MotesError(
            f"{name} has another value at a point when other points are in the batch: {numbers} with {len(value)} and "
            "with 2 points. Look for a mean, sum or maximum over the first axis, which counts points"
        )
    raise MotesError(
        f"{name} has another value at a point at another call: {numbers}. It draws random numbers or keeps a state; "
        "make it a plain function of its parameters"
    )


def _near(a: Tensor, b: Tensor, all: Tensor) -> bool:
    finite = all[torch.isfinite(all)].abs()
    size = float(finite.max()) if len(finite) else 0.0
    tolerance = (1e-5 if all.dtype == torch.float64 else 1e-3) * max(1.0, size)
    return bool(torch.allclose(a, b, rtol=0.0, atol=tolerance, equal_nan=True))


def unknown(error: KeyError, values: Values) -> UnknownName | None:
    """What a KeyError in a log-likelihood means, if it was about a parameter."""
    name = error.args[0] if error.args else None
    if not isinstance(name, str) or not isinstance(values, dict) or name in values:
        return None
    return UnknownName("parameter", name, values)


def not_added_up(shape: tuple[int, ...], n: int) -> str:
    """What to do about a result for n points that has further axes."""
    if len(shape) < 2 or shape[0] != n:
        return ""
    return ". There is a number for each of several terms of a point: add them up, with .sum(-1) at the end"


def _advice(many: Tensor | Failed, one: Tensor | Failed, n: int) -> str:
    if isinstance(many, Failed) and (said := not_added_up(many.shape, n)):
        return said
    if not (isinstance(one, Failed) and one.shape):
        return ""
    return ". If it is written for one point, add up the terms of its observations: it lacks .sum() at the end"


def _attempt(f: LogLikelihood, points: Values, shape: tuple[int, ...]) -> Tensor | Failed:
    """What `f` returns if that has the right shape, else what was wrong."""
    try:
        value = f(points)
    except MotesError as error:
        if shape or not isinstance(error, ShapeError):
            raise
        return Failed(cleaned(error))  # what takes batches may well refuse a single point
    except Exception as error:  # noqa: BLE001 - the user's code may fail in any way when it is called the way it was not written for
        missing = unknown(error, points) if isinstance(error, KeyError) else None
        if missing is not None:
            missing.__cause__ = error
        return Failed(cleaned(error), unknown=missing, refused="found invalid values" in str(error))
    if not isinstance(value, Tensor):
        return Failed(f"it returned a {type(value).__name__}, not a tensor")
    if tuple(value.shape) != shape:
        return Failed(f"it returned shape {tuple(value.shape)}, not {shape}", tuple(value.shape))
    return value.detach()


def _agree(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True))


def _said(value: Tensor | Failed) -> str:
    return (
        value.said if isinstance(value, Failed) else "it returned values that change with the other points of the batch"
    )


def _shapes(points: Values) -> str:
    if isinstance(points, Tensor):
        return f"(N, {', '.join(map(str, points.shape[1:]))})"
    return "{" + ", ".join(f"{k}: (N{''.join(f', {s}' for s in v.shape[1:])})" for k, v in points.items()) + "}"
