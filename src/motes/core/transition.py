"""The protocol by which a step of one domain enters a model of another."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError, WrongType


@runtime_checkable
class Transition(Protocol):
    """One normal step of a Markov chain: x' = mean + deviation * N(0, I), given the state x and a condition.

    States are tensors (N, ...), a row a particle. The condition is what else the step depends on: parameters, or the
    state of another chain, as tensors of N rows; None for a step that needs nothing. A class with these methods is a
    transition without saying so; one that says so inherits `log_density`. `motes.testing.check_transition` tries one.

    >>> import torch
    >>> from motes.core import Transition
    >>> class Decay(Transition):
    ...     def mean(self, state, condition=None):
    ...         return 0.9 * state
    ...     def deviation(self, state, condition=None):
    ...         return torch.tensor(0.5)
    >>> Decay().log_density(torch.zeros(2, 1), torch.zeros(2, 1)).exp()
    tensor([0.7979, 0.7979], dtype=torch.float64)
    """

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        """(N, ...) like the state."""
        ...

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        """Standard deviations, positive and finite: like the state, or (N, 1, ..., 1), one for each row.

        What all rows share is a number, or of the shape of one row.
        """
        ...

    def log_density(self, new: Tensor, state: Tensor, condition: Any = None) -> Tensor:
        """(N,) float64, nats: the log-density of the next states `new` (N, ...) given these."""
        mean, deviation = mean_and_deviation(self, state, condition)
        if new.shape != state.shape:
            raise ShapeError(f"next states have shape {tuple(new.shape)}, not {tuple(state.shape)} like the states")
        mean = mean.to(torch.float64)
        deviation = deviation.to(mean).expand_as(mean)
        each = -0.5 * ((new - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
        return each.reshape(len(each), -1).sum(1)


def must_be_transition(step: object, what: str = "transition") -> None:
    """A `WrongType` that names what `step` lacks to be a `Transition`, if it lacks anything."""
    if isinstance(step, type):
        raise WrongType(f"{what} is the class {step.__name__}: give an instance of it, {step.__name__}(...)")
    lacks = [
        name
        for name in ("mean", "deviation", "log_density")
        if not callable(getattr(step, name, None))
        or (name != "log_density" and getattr(getattr(step, name), "__func__", None) is getattr(Transition, name))
    ]
    if lacks:
        raise WrongType(
            f"{what} is a {type(step).__name__} without {' and '.join(lacks)}: a Transition has the methods "
            "mean(state, condition), deviation(state, condition) and log_density(new, state, condition), the last of "
            "which a subclass of motes.core.Transition inherits"
        )


def mean_and_deviation(step: Transition, state: Tensor, condition: Any = None, at: str = "") -> tuple[Tensor, Tensor]:
    """What a transition says of the next states, of the shapes that the protocol allows.

    Raises:
        WrongType, ShapeError, MotesError: it says anything else; `at` is where, such as " at t=3".
    """
    mean, deviation = step.mean(state, condition), step.deviation(state, condition)
    name, shape = type(step).__name__, tuple(state.shape)
    if not isinstance(mean, Tensor):
        raise WrongType(f"{name}.mean returned a {type(mean).__name__}{at}, not a tensor {shape} like the state")
    if mean.shape != shape:
        raise ShapeError(f"{name}.mean returned shape {tuple(mean.shape)}{at}, not {shape} like the state")
    if isinstance(deviation, int | float):
        deviation = torch.as_tensor(deviation, dtype=mean.dtype, device=mean.device)
    if not isinstance(deviation, Tensor):
        raise WrongType(f"{name}.deviation returned a {type(deviation).__name__}{at}, not a tensor or a number")
    each = (*shape[:1], *[1] * (len(shape) - 1))
    if tuple(deviation.shape) not in ((), shape, each, shape[1:]):
        raise ShapeError(
            f"{name}.deviation returned shape {tuple(deviation.shape)}{at}, not {shape} like the state, {each} for "
            f"one number a row, or a number or {shape[1:]} for all rows alike"
        )
    if not bool(((deviation > 0) & (deviation < math.inf)).all()):
        wrong = deviation[~((deviation > 0) & (deviation < math.inf))]
        raise MotesError(
            f"{name}.deviation returned {float(wrong.flatten()[0])}{at}: standard deviations are positive and finite "
            f"({wrong.numel()} of {deviation.numel()} are not)"
        )
    return mean, deviation
