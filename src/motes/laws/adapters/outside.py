"""Laws whose numbers another package computes, and what they have in common."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError, name_particles
from motes.kernels import State, Undefined
from motes.laws.checking import check, pardon
from motes.laws.law import Law
from motes.laws.parameters import Values
from motes.laws.refusal import spared
from motes.rng import Rng

EDGE = math.log(torch.finfo(torch.float64).max) - 10
"""Where exp of a coordinate, of its negative, and 1 over that are no longer all normal numbers."""

Shapes = dict[str, tuple[int, ...]]
"""The parameters by name, with the shape of each at one point."""


class Outside(Law):
    """A law that another package evaluates, held to what every law is held to."""

    dtype = torch.float64
    compile = False

    @abstractmethod
    def parts(self, z: Tensor, gradient: bool) -> State:
        """`evaluate` without its checks, without the position; "inside" (N,) bool may say where z is legal."""

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        """The state at z (N, dim); what there is to compile is compiled by the other package, whatever `compiled`."""
        state, inside, raised = self._state(z, gradient)
        check(self.constrain, state["log_likelihood"], inside, z, state, raised=raised)
        return state

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        """The state at trial points z (N, dim), and where the law is undefined, as for a `Density`."""
        state, inside, raised = self._state(z, gradient)
        return state, pardon(self.constrain, inside, state, raised)

    def _state(self, z: Tensor, gradient: bool) -> tuple[State, Tensor | None, Exception | None]:
        if gradient and not self.differentiable:
            raise MotesError(
                "the other package has no gradient of this density: use a kernel that needs none, like "
                "kernel='random-walk'"
            )
        values, raised = spared(lambda part: self.parts(part, gradient), z, lambda: self.sample(Rng(0).at("probe"), 1))
        inside = values.pop("inside", None)
        if inside is not None and bool(inside.all()):
            inside = None
        return {"position": z, **values}, inside, raised


def finite_draws(z: Tensor, mend: str) -> Tensor:
    """z (N, dim), if every number of it is finite.

    Raises:
        MotesError: a draw has no place among the real vectors.
    """
    bad = (~torch.isfinite(z).all(1)).nonzero().flatten().tolist()
    if bad:
        raise MotesError(
            f"the prior drew points outside of its own support, or on its edge, for {name_particles(bad)}: {mend}"
        )
    return z


def refuse_discrete(names: list[str]) -> None:
    """Discrete latent variables cannot be moved on the real line.

    Raises:
        MotesError: there are any.
    """
    if names:
        raise MotesError(
            f"the latent variables {names} are discrete: sum them out of the model (a mixture or a marginal "
            "likelihood, log-sum-exp over their values), so that what is left is continuous"
        )


def named(values: Values, shapes: Shapes) -> dict[str, Tensor]:
    """The parameters, as float64, in the order of `shapes`; other names (what a model derives) are left out.

    Raises:
        MotesError: one is missing.
        ShapeError: one has another shape than (N, ...).
    """
    if isinstance(values, Tensor) or not shapes.keys() <= values.keys():
        given = "one tensor" if isinstance(values, Tensor) else list(values)
        raise MotesError(f"the parameters are {list(shapes)}, not {given}")
    for name, shape in shapes.items():
        if tuple(values[name].shape[1:]) != shape:
            legal = ", ".join(("N", *map(str, shape)))
            raise ShapeError(f"{name} must have shape ({legal}), not {tuple(values[name].shape)}")
    return {name: values[name].to(torch.float64) for name in shapes}


def shapes_as_json(shapes: Shapes) -> dict[str, list[int]]:
    """The shapes as they are kept with a run."""
    return {name: list(shape) for name, shape in shapes.items()}
