"""Filters that a population of parameters carries: one small particle filter for each, all run at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from motes.core import tree
from motes.core.files.settings import digest
from motes.core.resampling import systematic_rows
from motes.core.transition import Transition, mean_and_deviation, must_be_transition
from motes.core.tree import PyTree
from motes.errors import MotesError, NanLogPotential, ShapeError, WrongType, name_particles
from motes.laws.parameters import Values
from motes.rng import Rng


class InnerFilter(ABC):
    """An estimate of p(y_1:t | theta) for N parameters at once that grows by one observation at a time.

    The product of the increments must have expectation p(y_1:t | theta), for every theta, size and t.
    """

    @property
    @abstractmethod
    def length(self) -> int:
        """How many observations there are."""

    @abstractmethod
    def start(self, rng: Rng, theta: Values, size: int) -> PyTree:
        """The filters before the first observation: tensors (N, ...), `size` particles each."""

    @abstractmethod
    def step(self, rng: Rng, theta: Values, inner: PyTree, t: int) -> tuple[PyTree, Tensor]:
        """The filters after observation `t` (from 0), and the logarithms of the increments (N,), nats."""

    @abstractmethod
    def fingerprint(self, stop: int) -> str:
        """What tells the first `stop` observations from others."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What identifies this filter beside its observations, as JSON."""

    def run(self, rng: Rng, theta: Values, size: int, stop: int) -> tuple[PyTree, Tensor]:
        """New filters over the first `stop` observations, and the log-likelihood estimates (N,), nats."""
        if not isinstance(stop, SupportsIndex) or not 0 <= stop <= self.length:
            raise MotesError(f"stop={stop!r} is not a number of observations from 0 to {self.length}, which there are")
        inner = self.start(rng.at("start"), theta, size)
        total = torch.zeros(rows(theta), dtype=torch.float64)
        for t in range(stop):
            inner, increment = self.step(rng.at("filter", inner=t), theta, inner, t)
            total = total + increment
        return inner, total


@dataclass(frozen=True)
class BootstrapFilter(InnerFilter):
    """A bootstrap particle filter for each of N parameters: move by the transition, weigh by the observation.

    Before each transition the particles of a filter are resampled systematically, with a uniform number of its own, so
    that the product of the mean weights is an unbiased estimate of the likelihood for any number of particles.

    References:
        Gordon, Salmond & Smith (1993), Novel approach to nonlinear/non-Gaussian Bayesian state estimation, IEE
        Proceedings F 140(2).

    Args:
        initial: (rng, theta, size) -> states (N, size, ...) before the first observation; a tensor or a dict of them.
        transition: (rng, theta, x, t) -> the states at observation t = 1, 2, ... given those at t - 1; or a
            `motes.core.Transition`, or T - 1 of them, for states that are one tensor (N, size, d). It sees N * size
            rows (N * size, d), those of the first parameter first, and is told theta with a row for each.
        log_observation: (theta, x, y, t) -> (N, size) nats, y the observation of time t.
        observations: a tensor (T, ...).

    All are for the whole population: the parameters theta have a first axis of N, so one number a parameter is
    `theta["rho"][:, None]`. Random numbers come from `rng`, with the first axis N. States have no NaN, and keep the
    dtype that they begin with.

    >>> import torch, motes
    >>> from motes.statespace.particle_filter import BootstrapFilter
    >>> walk = BootstrapFilter(
    ...     lambda rng, theta, size: rng.normal((len(theta["rho"]), size)),
    ...     lambda rng, theta, x, t: theta["rho"][:, None] * x + rng.normal(tuple(x.shape)),
    ...     lambda theta, x, y, t: -0.5 * (y - x).square(),
    ...     torch.tensor([0.3, 1.0, 0.2]),
    ... )
    >>> theta = {"rho": torch.tensor([0.1, 0.9], dtype=torch.float64)}
    >>> tuple(walk.run(motes.Rng(0), theta, 100, 3)[1].shape)
    (2,)
    """

    initial: Callable[[Rng, Any, int], PyTree]
    transition: Callable[[Rng, Any, PyTree, int], PyTree] | Transition | Sequence[Transition]
    log_observation: Callable[[Any, PyTree, Tensor, int], Tensor]
    observations: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.observations, Tensor) or self.observations.ndim == 0 or len(self.observations) == 0:
            raise ShapeError(f"observations must be a tensor (T, ...) with T >= 1, not {self.observations!r}")
        for name in ("initial", "log_observation"):
            if not callable(getattr(self, name)):
                raise WrongType(f"{name} must be a function, not {getattr(self, name)!r}")
        if not isinstance(self.transition, Sequence):
            _must_move(self.transition, "transition")
            return
        if len(self.transition) != len(self.observations) - 1:
            raise ShapeError(
                f"{len(self.observations)} observations have one transition fewer between them, not "
                f"{len(self.transition)}: give one, or a list of that many"
            )
        for k, step in enumerate(self.transition):
            _must_move(step, f"transition[{k}]")

    @property
    def length(self) -> int:
        return len(self.observations)

    def start(self, rng: Rng, theta: Values, size: int) -> PyTree:
        if not isinstance(size, SupportsIndex) or size < 1:
            raise MotesError(f"a filter has a whole number of states, at least one, not size={size!r}")
        x, n = self.initial(rng, theta, size), rows(theta)
        _must_be_states(x, (n, size), "initial")
        return {"x": x, "log_weight": torch.zeros(n, size, dtype=torch.float64)}

    def step(self, rng: Rng, theta: Values, inner: PyTree, t: int) -> tuple[PyTree, Tensor]:
        if not isinstance(t, SupportsIndex) or not 0 <= t < self.length:
            raise MotesError(f"t={t!r} is none of the T={self.length} observations, which are numbered from 0")
        x, log_weight = inner["x"], inner["log_weight"]
        if t > 0:
            parent = systematic_rows(rng.at("resample"), log_weight)
            row = torch.arange(len(parent))[:, None]
            old = tree.map_leaves(lambda v: v[row, parent], x)
            x = self._moved(rng.at("transition"), theta, old, t)
            _must_be_states(x, log_weight.shape, f"transition at t={t}", old)
        y = self.observations[t]
        missing = f"the observation at t={t} is itself NaN: return 0 for one that is missing, or leave it out"
        try:
            weight = self.log_observation(theta, x, y, t)
        except ValueError as error:  # distributions refuse NaN by themselves
            if isinstance(error, MotesError) or not bool(y.isnan().any()):
                raise
            raise NanLogPotential(f"log_observation failed at t={t}; {missing}") from error
        if not isinstance(weight, Tensor) or weight.shape != log_weight.shape:
            what = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise ShapeError(f"log_observation must return shape {tuple(log_weight.shape)}, not {what} as at t={t}")
        weight = weight.to(torch.float64)
        if not bool((weight < math.inf).all()):
            bad = (~(weight < math.inf)).any(1).nonzero().flatten().tolist()
            why = missing if bool(y.isnan().any()) else "a state that cannot be observed must get -inf"
            raise NanLogPotential(
                f"log_observation is NaN or +inf at t={t} for the parameters of {name_particles(bad)}; {why}"
            )
        return {"x": x, "log_weight": weight}, weight.logsumexp(1) - math.log(weight.shape[1])

    def _moved(self, rng: Rng, theta: Values, x: PyTree, t: int) -> PyTree:
        """The states at observation t."""
        step = self.transition[t - 1] if isinstance(self.transition, Sequence) else self.transition
        if not isinstance(step, Transition):
            return step(rng, theta, x, t)
        if not isinstance(x, Tensor):
            raise ShapeError(f"a Transition moves states that are one tensor (N, size, d), not a {type(x).__name__}")
        state, size = x.flatten(0, 1), x.shape[1]
        told = tree.map_leaves(lambda v: v.repeat_interleave(size, 0), theta)
        noise = rng.normal(tuple(x.shape), dtype=x.dtype).flatten(0, 1)
        mean, deviation = mean_and_deviation(step, state, told, f" at t={t}")
        return (mean + deviation * noise).unflatten(0, x.shape[:2])

    def fingerprint(self, stop: int) -> str:
        return digest(self.observations[:stop])

    def settings(self) -> dict[str, Any]:
        return {"kind": "bootstrap"}


def rows(theta: Values) -> int:
    """How many parameters there are."""
    return len(next(v for _, v in tree.leaves(theta)))


def _must_move(step: object, what: str) -> None:
    """A function or a whole `Transition`, or a `WrongType` that says what it lacks."""
    like = any(callable(getattr(step, name, None)) for name in ("mean", "deviation"))
    if isinstance(step, Transition) or (like and (isinstance(step, type) or not callable(step))):
        must_be_transition(step, what)
    elif not callable(step):
        raise WrongType(f"{what} must be a function (rng, theta, x, t) or a motes.core.Transition, not {step!r}")


def _must_be_states(x: PyTree, shape: Sequence[int], what: str, old: PyTree = None) -> None:
    """Tensors (N, size, ...) without NaN, of the dtypes of the `old` states, or an error that says what they are."""
    before = dict(tree.leaves(old))
    for where, leaf in tree.leaves(x):
        if not isinstance(leaf, Tensor):
            raise ShapeError(f"{what} returned {where} that is no tensor (N, size, ...) but {type(leaf).__name__}")
        if leaf.shape[:2] != tuple(shape):
            raise ShapeError(
                f"{what} returned {where} of shape {tuple(leaf.shape)}, not {tuple(shape)} (N, size) and then what "
                "one state has"
            )
        was = before.get(where)
        if was is not None and was.dtype != leaf.dtype:
            raise ShapeError(f"{what} made {where} {leaf.dtype} of {was.dtype}: begin and go on in one dtype")
        if bool(leaf.isnan().any()):
            bad = leaf.isnan().flatten(1).any(1).nonzero().flatten().tolist()
            raise MotesError(
                f"{what} returned NaN in {where} for the parameters of {name_particles(bad)}; let a state that "
                "cannot be have finite values, and -inf from log_observation"
            )
