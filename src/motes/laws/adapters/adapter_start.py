"""Where a sampler may start when a density has no prior that could be drawn from: a normalised law beside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from motes.errors import MotesError, ShapeError
from motes.kernels import State
from motes.laws.fits.lbfgs import Look, ascend
from motes.laws.parameters import Parameters
from motes.rng import Rng

STEPS, HISTORY = 1000, 20
FAR = 1e10
"""Guessed standard deviations from the first point at which a mode cannot be."""


class AdapterStart:
    """A law on R^dim that stands in for a prior; the density over it is then the likelihood.

    Args:
        distribution: over a vector (dim,), or a number where dim is 1, with support on all of R^dim.
        dim: the length of z.

    Raises:
        ShapeError: it is over another number of dimensions.
        MotesError: its support is not R^dim.
    """

    def __init__(self, distribution: Distribution, dim: int):
        self.parameters: Parameters = Parameters(distribution)
        if self.parameters.dim != dim:
            raise ShapeError(f"start must be over a vector of the density's {dim} numbers, not {self.parameters.dim}")
        if not self.parameters.real:
            raise MotesError(f"start must have support on all of R^{dim}; {type(distribution).__name__} has not")
        self.name: str = type(distribution).__name__

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


def around_mode(look: Look, initial: Tensor, widen: float) -> MultivariateNormal:
    """A Gaussian around a mode of a density, looked for from `initial` (dim,), with the curvature there.

    The precision is the Hessian of the negative log-density at the mode, by differences of gradients; the standard
    deviations are stretched by `widen`: a start that is too narrow gives weights without a variance, one that is too
    wide costs log(widen) nats a dimension. The evidence does not depend on it, since the Gaussian is normalised; but
    modes that it does not reach are found by luck only, so a density with several of them deserves a start of its own.

    Raises:
        ValueError: `widen` is below 1.
        MotesError: the density is zero or not a number at `initial`, or rises without end.
    """
    if not 1 <= widen < math.inf:
        raise MotesError(f"widen must be finite and at least 1, not {widen}")
    value, slope = look(initial[None])
    if not (torch.isfinite(value).all() and torch.isfinite(slope).all()):
        raise MotesError(
            f"the log-density is {float(value[0])} with gradient {slope[0, :4].tolist()} at the point from which its "
            "mode is looked for: give another `initial`, or a `start`"
        )
    mode, guess = initial, torch.ones_like(initial)
    for place in ascend(look, initial[None], STEPS, HISTORY):
        mode, guess = place.z[0], place.inverse[0].diagonal().clamp(1e-12, 1e12).sqrt()
        if not float(((mode - initial) / guess).abs().max()) < FAR:
            raise MotesError("the log-density has no mode, it rises without end: give a `start`")
    step = torch.finfo(torch.float64).eps ** (1 / 3) * guess
    up, down = look(torch.cat([mode + step.diag(), mode - step.diag()]))[1].chunk(2)
    hessian = (down - up) / (2 * step)[:, None]
    # in units of the guessed scales, so that one that is tiny does not drown in the rounding of another
    scaled = (hessian + hessian.T) / 2 * guess * guess[:, None]
    if not torch.isfinite(scaled).all():
        scaled = torch.eye(len(mode), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(scaled)
    # a saddle or a plateau has no curvature to go by: its scale is at most a hundred times the guess
    covariance = (vectors / values.abs().clamp_min(1e-4)) @ vectors.T * guess * guess[:, None] * widen**2
    return MultivariateNormal(mode, (covariance + covariance.T) / 2)


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
