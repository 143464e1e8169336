"""Priors whose draws underflow, or round to the edge of their support: gamma, beta and Dirichlet laws in logarithms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Distribution, Gamma, Independent, InverseGamma
from torch.nn.functional import logsigmoid, softplus

from motes.rng import Rng

GAMMA, BETA, DIRICHLET = 0.06, 0.4, 0.6
"""Concentrations below which a draw may be lost: one of 1e15 underflows, one of 1e6 rounds to 1, and one of 1e9 leaves
nothing for the rest of a stick."""
SMALL = 0.6
"""Concentrations below which the logarithm of a gamma number has a tail too long, and an end too steep, to move in."""
LOW = -30.0
"""Where exp(q) and log(1 + exp(q)) are the same."""


class LogSpace(ABC):
    """A prior made of gamma numbers x, of which real vectors u hold the logarithms, drawn out to a normal law.

    Where a concentration a is small, log x is spread over 1 / a units below and ends within one unit above, a cliff at
    which no step size suits both. There u, about standard normal, has log x = log log(1 + k / (exp(r) - 1)), with
    r = -log Phi(u) / a and k = Gamma(a + 1)^(1 / a): a closed form near the quantile function, whose derivative makes
    the density of u exact. Where a is not small, u is log x.

    The parameter is what these logarithms say as far as floating-point numbers go: beyond, between the edge of the
    support and the numbers whose third powers are normal, it is the last of those, while the prior's density and draws
    go on. So no mass of the prior is cut off, and a likelihood that has a limit at the edge is right there.
    """

    dtype: torch.dtype

    free_shape: tuple[int, ...]

    def __init__(self, concentration: Tensor, dtype: torch.dtype):
        self.a: Tensor = concentration.to(dtype)
        self.dtype, self.free_shape = dtype, tuple(concentration.shape)
        self.least = torch.finfo(dtype).tiny ** (1 / 3)
        self.small: Tensor = self.a < SMALL
        self.log_k: Tensor = torch.lgamma(self.a + 1) / self.a

    @abstractmethod
    def _parameter(self, log_x: Tensor) -> Tensor:
        """The parameter (N, *shape) of logarithms (N, *free_shape), inside of its support."""

    @abstractmethod
    def _logarithms(self, value: Tensor) -> Tensor:
        """(N, *free_shape) some logarithms that have this parameter."""

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, *free_shape) draws."""
        return self._drawn_out(rng.log_gamma((n, *self.free_shape), self.a).to(self.dtype))

    def value(self, u: Tensor) -> Tensor:
        """(N, *shape) the parameter at u (N, *free_shape)."""
        return self._parameter(self._log_x(u)[0])

    def log_density(self, u: Tensor) -> Tensor:
        """(N, *free_shape) nats, the log-density of each number of u."""
        log_x, log_slope = self._log_x(u)
        most = 0.9 * math.log(torch.finfo(self.dtype).max)  # stays finite
        return self.a * log_x - log_x.clamp(max=most).exp() - torch.lgamma(self.a) + log_slope

    def inverse(self, value: Tensor) -> Tensor:
        """(N, *free_shape) a u that has this parameter."""
        return self._drawn_out(self._logarithms(value))

    def _log_x(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log x, and the logarithm of its derivative by u."""
        log_phi = torch.special.log_ndtr(u)
        r = (-log_phi / self.a).clamp_min(self.least)
        log_rest = torch.log(-torch.expm1(-r))
        q = self.log_k - r - log_rest
        high = softplus(q.clamp_min(LOW)).log()
        log_x = torch.where(q < LOW, q, high)
        log_slope = (
            torch.where(q < LOW, 0.0, logsigmoid(q) - high)
            - log_rest
            - 0.5 * (u.square() + math.log(2 * math.pi))
            - log_phi
            - self.a.log()
        )
        return torch.where(self.small, log_x, u), torch.where(self.small, log_slope, 0.0)

    def _drawn_out(self, log_x: Tensor) -> Tensor:
        """The u of log x."""
        x = log_x.exp()
        q = torch.where(log_x < LOW, log_x, x + torch.log(-torch.expm1(-x)))
        area = self.a * softplus(self.log_k - q)  # -log Phi(u)
        lower, upper = torch.special.ndtri(torch.exp(-area)), -torch.special.ndtri(-torch.expm1(-area))
        return torch.where(self.small, torch.where(area > math.log(2), lower, upper), log_x)


class LogGamma(LogSpace):
    """A parameter x / rate with x ~ Gamma(concentration), or its inverse."""

    log_rate: Tensor
    sign: float

    def __init__(self, prior: Gamma, shape: tuple[int, ...], dtype: torch.dtype, inverted: bool):
        super().__init__(prior.concentration.expand(shape), dtype)
        self.log_rate, self.sign = prior.rate.expand(shape).to(dtype).log(), -1.0 if inverted else 1.0

    def _parameter(self, log_x: Tensor) -> Tensor:
        return (self.sign * (log_x - self.log_rate)).exp().clamp(self.least, 1 / self.least)

    def _logarithms(self, value: Tensor) -> Tensor:
        return self.sign * value.log() + self.log_rate


class LogOdds(LogSpace):
    """A parameter x / (x + y) with x ~ Gamma(a), y ~ Gamma(b), so that it is Beta(a, b).

    There is one number more than the parameter has freedom: the total, which nothing depends on, keeps its prior.
    """

    def __init__(self, prior: Beta, shape: tuple[int, ...], dtype: torch.dtype):
        both = [p.expand(shape) for p in (prior.concentration1, prior.concentration0)]
        super().__init__(torch.stack(both, -1), dtype)

    def _parameter(self, log_x: Tensor) -> Tensor:
        p = torch.sigmoid(log_x[..., 0] - log_x[..., 1])
        return p.clamp(self.least, 1.0 - torch.finfo(self.dtype).eps / 2)

    def _logarithms(self, value: Tensor) -> Tensor:
        return torch.stack([value.log(), torch.log1p(-value)], -1) + self.a.sum(-1, keepdim=True).log()


class LogWeights(LogSpace):
    """Weights x_k / sum x with x_k ~ Gamma(a_k), so that they are Dirichlet(a); the total keeps its prior here too."""

    def __init__(self, prior: Dirichlet, shape: tuple[int, ...], dtype: torch.dtype):
        super().__init__(prior.concentration.expand(shape), dtype)

    def _parameter(self, log_x: Tensor) -> Tensor:
        return log_x.softmax(-1).clamp_min(self.least)

    def _logarithms(self, value: Tensor) -> Tensor:
        return value.clamp_min(self.least).log() + self.a.sum(-1, keepdim=True).log()


def log_space(prior: Distribution, dtype: torch.dtype) -> LogSpace | None:
    """The logarithms of a parameter whose draws may underflow or round to the edge; None where they are safe."""
    shape = tuple(prior.batch_shape + prior.event_shape)
    while isinstance(prior, Independent):
        prior = prior.base_dist
    if isinstance(prior, InverseGamma) and isinstance(prior.base_dist, Gamma):
        return LogGamma(prior.base_dist, shape, dtype, True) if _below(prior.base_dist.concentration, GAMMA) else None
    if isinstance(prior, Gamma):
        return LogGamma(prior, shape, dtype, False) if _below(prior.concentration, GAMMA) else None
    if isinstance(prior, Beta):
        lower = torch.minimum(prior.concentration1, prior.concentration0)
        return LogOdds(prior, shape, dtype) if _below(lower, BETA) else None
    if isinstance(prior, Dirichlet):
        return LogWeights(prior, shape, dtype) if _below(prior.concentration, DIRICHLET) else None
    return None


def _below(concentration: Tensor, limit: float) -> bool:
    return bool((concentration < limit).any())
