"""Where a sampler may start when a density has no prior that could be drawn from: a normalised law beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from motes.core.errors import MotesError, ShapeError
from motes.density.parameters import Parameters
from motes.kernels import State
from motes.rng import Rng

ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps z (N, dim) to log-densities (N,) and their gradients (N, dim)."""


class Start:
    """A law on R^dim that stands in for a prior; the density over it is then the likelihood.

    Args:
        distribution: over a vector (dim,), or a number where dim is 1, with support on all of R^dim.
        dim: the length of z.

    Raises:
        ShapeError: it is over another number of dimensions.
        MotesError: its support is not R^dim.
    """

    def __init__(self, distribution: Distribution, dim: int):
        self.parameters = Parameters(distribution)
        if self.parameters.dim != dim:
            raise ShapeError(f"start must be over a vector of the density's {dim} numbers, not {self.parameters.dim}")
        if not self.parameters.real:
            raise MotesError(f"start must have support on all of R^{dim}; {type(distribution).__name__} has not")
        self.name = type(distribution).__name__

    def sample(self, rng: Rng, n: int) -> Tensor:
        return self.parameters.sample(rng, n)

    def under(self, z: Tensor, log_density: Tensor, gradient: Tensor | None) -> State:
        """A state without its position: the start as prior, the density over the start as likelihood."""
        if gradient is None:
            prior = self.parameters.log_prior(z)
            return {"log_likelihood": log_density - prior, "log_prior": prior}
        if (closed := self.parameters.normal(z)) is not None:
            prior, slope = closed
        else:
            leaf = z.detach().requires_grad_()
            prior = self.parameters.log_prior(leaf)
            (slope,) = torch.autograd.grad(prior.sum(), leaf)
        return {
            "log_likelihood": log_density - prior.detach(),
            "log_prior": prior.detach(),
            "likelihood_gradient": gradient - slope,
            "prior_gradient": slope,
        }


@dataclass(frozen=True)
class Laplace:
    """A Gaussian around the mode of a density, found by BFGS, with the curvature there as its precision.

    The covariance is the inverse Hessian of the negative log-density, from differences of gradients, with its standard
    deviations stretched by `widen`: a start that is too narrow gives weights without a variance, one that is too wide
    costs log(widen) nats a dimension. The evidence does not depend on it, since the Gaussian is normalised; but modes
    that it does not reach are found by luck only, so a density with several of them deserves a start of its own.

    Args:
        widen: the factor on the standard deviations, at least 1.
        steps: iterations of BFGS at most.
    """

    widen: float = 1.5
    steps: int = 500

    def __post_init__(self) -> None:
        if not 1 <= self.widen < math.inf or self.steps < 1:
            raise ValueError(f"widen must be finite and at least 1, steps at least 1, not {self.widen}, {self.steps}")

    def __call__(self, f: ValueAndGradient, initial: Tensor) -> MultivariateNormal:
        """The Gaussian for `f`, looked for from `initial` (dim,).

        Raises:
            MotesError: the density is zero or not a number at `initial`, or rises without end.
        """
        mode, guess = self.mode(f, initial.to(torch.float64))
        step = torch.finfo(torch.float64).eps ** (1 / 3) * guess.diagonal().sqrt().clamp(1e-3, 1e3)
        ends = torch.cat([mode + step.diag(), mode - step.diag()])
        _, slope = f(ends)
        up, down = slope.chunk(2)
        hessian = -(up - down) / (2 * step)[:, None]
        if not torch.isfinite(hessian).all():
            hessian = torch.linalg.inv(guess)
        values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
        # a saddle or a plateau has no curvature to go by: the largest scale that is still told apart from flat
        values = values.abs().clamp_min(1e-8 * max(float(values.abs().max()), 1e-8))
        covariance = (vectors / values) @ vectors.T * self.widen**2
        return MultivariateNormal(mode, (covariance + covariance.T) / 2)

    def mode(self, f: ValueAndGradient, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Where the density is highest, and BFGS's guess of its covariance there."""
        x, inverse = initial.clone(), torch.eye(len(initial), dtype=torch.float64)
        value, slope = _at(f, x)
        if not math.isfinite(value) or not torch.isfinite(slope).all():
            raise MotesError(
                f"the log-density is {value} with gradient {slope.tolist()[:4]} at the point from which its mode is "
                "looked for: give another `initial`, or a `start`"
            )
        for k in range(self.steps):
            direction = inverse @ slope
            rise = float(direction @ slope)
            if rise < 1e-12 * (1 + abs(value)):
                break
            length = 1.0 if k else min(1.0, 1.0 / float(slope.norm()))
            while True:
                there = x + length * direction
                new, new_slope = _at(f, there)
                if new >= value + 1e-4 * length * rise and torch.isfinite(new_slope).all():
                    break
                length /= 2
                if length < 1e-14:
                    return x, inverse
            s, y = there - x, slope - new_slope
            x, value, slope = there, new, new_slope
            if not float(x.abs().max()) < 1e150:
                raise MotesError("the log-density has no mode, it rises without end: give a `start`")
            if float(s @ y) > 1e-12 * float(s.norm() * y.norm()):
                if k == 0:
                    inverse = inverse * float(s @ y) / float(y @ y)
                # Nocedal & Wright (2006), Numerical optimization, eq. 6.17
                turn = torch.eye(len(x), dtype=torch.float64) - torch.outer(s, y) / (s @ y)
                inverse = turn @ inverse @ turn.T + torch.outer(s, s) / (s @ y)
        return x, inverse


def _at(f: ValueAndGradient, x: Tensor) -> tuple[float, Tensor]:
    value, slope = f(x[None])
    number = float(value[0])
    return (number if not math.isnan(number) else -math.inf), slope[0].to(torch.float64)


def initial_point(initial: Tensor | int | None) -> Tensor:
    """The point (dim,) that `initial` means: itself, or the origin of that many dimensions."""
    if isinstance(initial, int) and not isinstance(initial, bool) and initial >= 1:
        return torch.zeros(initial, dtype=torch.float64)
    if initial is None or isinstance(initial, (int, str)):
        raise MotesError(
            "give `start`, a torch.distributions object to draw the first points from; or `initial`, the number of "
            "dimensions or a point (d,) from which the mode is looked for, and a Gaussian around it is the start"
        )
    point = torch.as_tensor(initial, dtype=torch.float64)
    if point.ndim != 1:
        raise ShapeError(f"initial must be a point (d,) or a number of dimensions, not of shape {tuple(point.shape)}")
    return point
