"""What density samplers work on: a reference law that can be drawn from, reweighted by a likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from motes.errors import MotesError, WrongType
from motes.kernels import State, Undefined
from motes.laws.parameters import Values
from motes.rng import Rng


class Law(ABC):
    """A law with density reference(z) x exp(log_likelihood(z)) over vectors z (dim,), whose normaliser is the evidence.

    The reference is a normalised law that can be drawn from: a prior, or whatever stands in for one (a fitted flow, a
    Laplace approximation, uniform spins). States keep the two factors apart, under the keys "log_prior" and
    "log_likelihood", so that samplers can temper between them; the names are those of the commonest case.

    Attributes:
        dim: length of z.
        dtype: of z and of every evaluation.
        differentiable: whether gradients with respect to z can be had.
        compile: whether evaluations go through `torch.compile`; "auto" leaves it to the sampler.
        levels: where z holds whole numbers 0..levels-1, how many there are; None on R^d.
    """

    dim: int
    dtype: torch.dtype
    differentiable: bool
    compile: bool | Literal["auto"] = False
    levels: int | None = None

    @abstractmethod
    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the reference."""

    @abstractmethod
    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        """The state at z (N, dim): everything that a kernel or a change of temperature needs to know of these points.

        Args:
            gradient: with the gradients of both parts.
            compiled: whether to go through `torch.compile`, where that is possible; None is `self.compile is True`.

        Returns:
            "position" (N, dim), "log_likelihood" and "log_prior" (N,) float64 nats, and with `gradient`
            "likelihood_gradient" and "prior_gradient" (N, dim), zero where the density is.

        Raises:
            NanLogPotential: a value is NaN or +inf, or a gradient is not finite where the density is positive.
        """

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        """The state at trial points z (N, dim) of a kernel, and where the law is undefined; None is nowhere.

        What would be an error of `evaluate` counts as density zero there: a trial point that leaves the support, or at
        which a matrix is not positive definite, is rejected. A law that does not say otherwise raises the error.
        """
        return self.evaluate(z, gradient, compiled), None

    def hessian_vector(self, z: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The Hessians of log-prior and log-likelihood at z (N, dim), each times `vector` (N, dim)."""
        raise MotesError(
            f"{type(self).__name__} has no second derivatives: write it as a Density, or use a kernel that needs none"
        )

    @abstractmethod
    def constrain(self, z: Tensor) -> Values:
        """The parameters as the user means them, one tensor (N, d) or tensors (N, ...) by name, at z (N, dim)."""

    @abstractmethod
    def unconstrain(self, values: Values) -> Tensor:
        """The vectors z (N, dim) of parameters with a first axis of N points."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What identifies this law, as JSON: kept with a run and compared on resume."""


def must_be_law(density: object) -> None:
    """Raise WrongType unless `density` is a law that samplers can use."""
    if isinstance(density, Law):
        return
    if isinstance(density, type):
        what = f"the class {density.__name__} itself: make one of it"
    elif callable(density):
        what = "a function: wrap it with its prior, motes.Density(log_likelihood, prior)"
    else:
        what = f"a {type(density).__name__}: motes.Density(log_likelihood, prior) makes one"
    raise WrongType(f"what is sampled is a law, like a motes.Density, and this is {what}")
