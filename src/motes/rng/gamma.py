"""Gamma, beta and Dirichlet numbers, each element from its own blocks of words."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.errors import MotesError

from .address import Address
from .elementary import exp, log, sqrt
from .normal import normal64


def log_gamma(rng: Address, kind: str, shape: tuple[int, ...], concentration: Tensor) -> Tensor:
    """The logarithm of gamma numbers with unit rate, float64: exact where the number itself would underflow.

    Marsaglia and Tsang, A simple method for generating gamma variables (ACM TOMS 26, 2000); concentrations below 1 by
    their boost, gamma(a) = gamma(a + 1) U^(1/a), in logarithms.
    """
    a = check(rng, "concentration", concentration, shape)
    boosted = torch.where(a < 1.0, a + 1.0, a).flatten()
    d = boosted - 1.0 / 3.0
    c = 1.0 / sqrt(d * 9.0)

    def attempt(at: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        x = normal64(u)
        root = c[at] * x + 1.0
        positive = root > 0.0
        v = torch.where(positive, root * root * root, 1.0)
        log_v = log(v)
        fits = log(w) < x * x * 0.5 + d[at] * (1.0 - v + log_v)
        return log(d[at]) + log_v, positive & fits

    value = rng._attempts(kind, shape, attempt)
    if bool((a < 1.0).any()):
        boost = log(rng._draw("uniform", kind + ".boost", shape, torch.float64)) / a
        value = torch.where(a < 1.0, value + boost, value)
    return value


def gamma(rng: Address, shape: tuple[int, ...], concentration: Tensor | float, dtype: torch.dtype) -> Tensor:
    """Gamma numbers with unit rate; what would underflow is the smallest normal number, so that its log is finite."""
    value = exp(log_gamma(rng, "gamma", shape, as_tensor(rng, concentration)))
    return value.to(dtype).clamp_min(torch.finfo(dtype).tiny)


def beta(rng: Address, shape: tuple[int, ...], a: Tensor | float, b: Tensor | float, dtype: torch.dtype) -> Tensor:
    """Beta numbers from two gamma numbers, in logarithms; kept inside the open interval."""
    log_x = log_gamma(rng, "beta.a", shape, as_tensor(rng, a))
    log_y = log_gamma(rng, "beta.b", shape, as_tensor(rng, b))
    info = torch.finfo(dtype)
    return (1.0 / (exp(log_y - log_x) + 1.0)).to(dtype).clamp(info.tiny, 1.0 - info.eps / 2)


def dirichlet(rng: Address, shape: tuple[int, ...], concentration: Tensor, dtype: torch.dtype) -> Tensor:
    """Points of the simplex (*shape, K) for concentrations (..., K)."""
    concentration = as_tensor(rng, concentration)
    if concentration.ndim < 1:
        raise MotesError("dirichlet: concentration needs an axis of categories, (..., K); got a scalar")
    full = (*shape, concentration.shape[-1])
    g = log_gamma(rng, "dirichlet", full, concentration)
    g = exp(g - g.amax(-1, keepdim=True))
    # a running sum has one order of additions; sum() may choose its order by the size of the tensor
    return (g / g.cumsum(-1)[..., -1:]).to(dtype).clamp_min(torch.finfo(dtype).tiny)


def as_tensor(rng: Address, value: Tensor | float) -> Tensor:
    """A parameter as a float64 tensor on the generator's device."""
    return torch.as_tensor(value, dtype=torch.float64, device=rng.device)


def check(rng: Address, name: str, value: Tensor, shape: tuple[int, ...], *, zero: bool = False) -> Tensor:
    """Expand a parameter to `shape`; raise if it does not fit or is not positive and finite."""
    try:
        value = value.expand(shape)
    except RuntimeError:
        raise MotesError(f"{name} has shape {tuple(value.shape)}, which does not expand to {shape}") from None
    bad = ~((value >= 0.0 if zero else value > 0.0) & torch.isfinite(value))
    if bool(bad.any()):
        where = bad.nonzero()[:5].tolist()
        raise MotesError(f"{name} must be finite and {'not negative' if zero else 'positive'}; it is not at {where}")
    return value.contiguous()
