"""Drawing from a `torch.distributions` object without torch's global generator.

Numbers are made in float64 from what the generator offers and rounded to the distribution's own dtype. Only functions
that torch rounds alike wherever an element lies in a tensor are used here: pow, sigmoid and softplus are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from motes.errors import MotesError, Unsupported

from . import discrete
from .address import Address
from .elementary import exp, log, sqrt
from .gamma import log_gamma

Sampler = Callable[[Any, Any, int | None], Tensor]
SAMPLERS: dict[type, Sampler] = {}
LOOP = 128  # up to this dimension a matrix is applied column by column, in an order that no batch can change


def register(*families: type) -> Callable[[Sampler], Sampler]:
    """Teach `Rng.sample` a family: decorate `f(rng, distribution, n) -> (n, *batch_shape, *event_shape)`.

    With `n` None the leading axis is left out, and the first batch axis counts the particles.

    The function must draw from `rng` only, with shapes whose first axis is the particles.

    >>> class Rademacher(td.Bernoulli): ...
    >>> @register(Rademacher)
    ... def rademacher(rng, d, n):
    ...     return rng.bernoulli(d.probs.expand(*_lead(n), *d.batch_shape)).double() * 2 - 1
    """

    def add(sampler: Sampler) -> Sampler:
        for family in families:
            SAMPLERS[family] = sampler
        return sampler

    return add


def sample(rng: Address, distribution: td.Distribution, n: int | None) -> Tensor:
    """n draws (n, *batch_shape, *event_shape), or one of each element of a batch whose first axis is particles."""
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise MotesError(f"sample: n must be None or a whole number, not negative, got {n!r}")
    if n is None and not distribution.batch_shape:  # nothing in it counts particles: one draw that all share
        return sample(rng._whole().at("shared"), distribution, 1)[0]
    sampler = SAMPLERS.get(type(distribution))
    if sampler is None and isinstance(distribution, td.TransformedDistribution):
        own = type(distribution)
        if own.sample is td.TransformedDistribution.sample and own.rsample is td.TransformedDistribution.rsample:
            sampler = _transformed
    if sampler is None:
        known = ", ".join(sorted({f.__name__ for f in SAMPLERS}))  # packages may register families of one name
        raise Unsupported(
            f"sample: no way to draw from {type(distribution).__name__} by address. Known are {known}, and whatever "
            "TransformedDistribution builds on them; add another with motes.rng.register"
        )
    with torch.no_grad():
        value = sampler(rng.at("sample()"), distribution, n)
    expected = _shape(distribution, n)
    if tuple(value.shape) != expected:
        raise MotesError(
            f"sample: the sampler for {type(distribution).__name__} returned {tuple(value.shape)}, not {expected}"
        )
    return value


def _shape(d: td.Distribution, n: int | None) -> tuple[int, ...]:
    return (*_lead(n), *d.batch_shape, *d.event_shape)


def _lead(n: int | None) -> tuple[int, ...]:
    return () if n is None else (n,)


def _wide(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(v.detach().to(torch.float64) for v in values)


def _transformed(rng: Address, d: Any, n: int | None) -> Tensor:
    value = sample(rng, d.base_dist, n)
    for transform in d.transforms:
        value = transform(value)
    return value


@register(td.Independent)
def _independent(rng: Address, d: td.Independent, n: int | None) -> Tensor:
    return sample(rng, d.base_dist, n)


# -------------------------------------------------------------------- a location and a scale


@register(td.Normal)
def _normal(rng: Address, d: td.Normal, n: int | None) -> Tensor:
    loc, scale = _wide(d.loc, d.scale)
    return (rng.normal(_shape(d, n)) * scale + loc).to(d.loc.dtype)


@register(td.HalfNormal)
def _half_normal(rng: Address, d: td.HalfNormal, n: int | None) -> Tensor:
    return (rng.normal(_shape(d, n)).abs() * d.scale.detach().double()).to(d.scale.dtype)


@register(td.LogNormal)
def _log_normal(rng: Address, d: td.LogNormal, n: int | None) -> Tensor:
    loc, scale = _wide(d.loc, d.scale)
    return exp(rng.normal(_shape(d, n)) * scale + loc).to(d.loc.dtype)


@register(td.Laplace)
def _laplace(rng: Address, d: td.Laplace, n: int | None) -> Tensor:
    loc, scale = _wide(d.loc, d.scale)
    u = rng.uniform(_shape(d, n)) - 0.5
    # log(2 min(u, 1 - u)) with the sign of the side; 1 - 2|u| is exact and never 0
    return (loc - scale * torch.sign(u) * log(1.0 - 2.0 * u.abs())).to(d.loc.dtype)


@register(td.Cauchy)
def _cauchy(rng: Address, d: td.Cauchy, n: int | None) -> Tensor:
    loc, scale = _wide(d.loc, d.scale)
    return (torch.tan((rng.uniform(_shape(d, n)) - 0.5) * math.pi) * scale + loc).to(d.loc.dtype)


@register(td.HalfCauchy)
def _half_cauchy(rng: Address, d: td.HalfCauchy, n: int | None) -> Tensor:
    return (torch.tan(rng.uniform(_shape(d, n)) * (math.pi / 2)) * d.scale.detach().double()).to(d.scale.dtype)


@register(td.Uniform)
def _uniform(rng: Address, d: td.Uniform, n: int | None) -> Tensor:
    low, high = _wide(d.low, d.high)
    return (rng.uniform(_shape(d, n)) * (high - low) + low).to(d.low.dtype)


@register(td.Gumbel)
def _gumbel(rng: Address, d: td.Gumbel, n: int | None) -> Tensor:
    loc, scale = _wide(d.loc, d.scale)
    return (rng.gumbel(_shape(d, n)) * scale + loc).to(d.loc.dtype)


@register(td.MultivariateNormal)
def _multivariate_normal(rng: Address, d: td.MultivariateNormal, n: int | None) -> Tensor:
    loc, tril = _wide(d.loc, d.scale_tril)
    return (loc + _apply(tril, rng.normal(_shape(d, n)))).to(d.loc.dtype)


@register(td.LowRankMultivariateNormal)
def _low_rank_normal(rng: Address, d: td.LowRankMultivariateNormal, n: int | None) -> Tensor:
    loc, factor, diagonal = _wide(d.loc, d.cov_factor, d.cov_diag)
    shared = rng.at("factor").normal((*_lead(n), *d.batch_shape, factor.shape[-1]))
    return (loc + _apply(factor, shared) + sqrt(diagonal) * rng.normal(_shape(d, n))).to(d.loc.dtype)


def _apply(matrix: Tensor, z: Tensor) -> Tensor:
    """matrix @ z over the last axes; above LOOP columns by matmul, whose last bits may depend on the batch."""
    if matrix.shape[-1] > LOOP:
        return (matrix @ z.unsqueeze(-1)).squeeze(-1)
    value = matrix[..., 0] * z[..., :1]
    for k in range(1, matrix.shape[-1]):
        value = value + matrix[..., k] * z[..., k : k + 1]
    return value


@register(td.StudentT)
def _student_t(rng: Address, d: td.StudentT, n: int | None) -> Tensor:
    df, loc, scale = _wide(d.df, d.loc, d.scale)
    log_chi = log_gamma(rng, "gamma", _shape(d, n), df / 2)
    z = rng.normal(_shape(d, n)) * exp((log(df / 2) - log_chi) * 0.5)
    return (z * scale + loc).to(d.loc.dtype)


# -------------------------------------------------------------------- positive numbers and simplices


def _positive(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).clamp_min(torch.finfo(dtype).tiny)


@register(td.Exponential)
def _exponential(rng: Address, d: td.Exponential, n: int | None) -> Tensor:
    return _positive(rng.exponential(_shape(d, n)) / d.rate.detach().double(), d.rate.dtype)


@register(td.Gamma, td.Chi2)
def _gamma(rng: Address, d: td.Gamma, n: int | None) -> Tensor:
    a, rate = _wide(d.concentration, d.rate)
    return _positive(exp(log_gamma(rng, "gamma", _shape(d, n), a)) / rate, d.rate.dtype)


@register(td.InverseGamma)
def _inverse_gamma(rng: Address, d: td.InverseGamma, n: int | None) -> Tensor:
    a, rate = _wide(d.concentration, d.rate)
    return _positive(exp(-log_gamma(rng, "gamma", _shape(d, n), a)) * rate, d.rate.dtype)


@register(td.Weibull)
def _weibull(rng: Address, d: td.Weibull, n: int | None) -> Tensor:
    scale, a = _wide(d.scale, d.concentration)
    return _positive(scale * exp(log(rng.exponential(_shape(d, n))) / a), d.scale.dtype)


@register(td.Pareto)
def _pareto(rng: Address, d: td.Pareto, n: int | None) -> Tensor:
    scale, a = _wide(d.scale, d.alpha)
    return (scale * exp(rng.exponential(_shape(d, n)) / a)).to(d.scale.dtype)


@register(td.FisherSnedecor)
def _fisher(rng: Address, d: td.FisherSnedecor, n: int | None) -> Tensor:
    df1, df2 = _wide(d.df1, d.df2)
    top = log_gamma(rng, "fisher.1", _shape(d, n), df1 / 2) - log(df1)
    bottom = log_gamma(rng, "fisher.2", _shape(d, n), df2 / 2) - log(df2)
    return _positive(exp(top - bottom), d.df1.dtype)


@register(td.Kumaraswamy)
def _kumaraswamy(rng: Address, d: td.Kumaraswamy, n: int | None) -> Tensor:
    a, b = _wide(d.concentration1, d.concentration0)
    dtype = d.concentration1.dtype
    # (1 - u^(1/b))^(1/a); expm1 keeps the numbers near 0
    inner = -torch.expm1(log(rng.uniform(_shape(d, n))) / b)
    return _inside(exp(log(inner.clamp_min(torch.finfo(torch.float64).tiny)) / a), dtype)


@register(td.Beta)
def _beta(rng: Address, d: td.Beta, n: int | None) -> Tensor:
    return rng.beta(_shape(d, n), *_wide(d.concentration1, d.concentration0), dtype=d.concentration1.dtype)


@register(td.Dirichlet)
def _dirichlet(rng: Address, d: td.Dirichlet, n: int | None) -> Tensor:
    return rng.dirichlet((*_lead(n), *d.batch_shape), *_wide(d.concentration), dtype=d.concentration.dtype)


def _inside(value: Tensor, dtype: torch.dtype) -> Tensor:
    info = torch.finfo(dtype)
    return value.to(dtype).clamp(info.tiny, 1.0 - info.eps / 2)


@register(td.VonMises)
def _von_mises(rng: Address, d: td.VonMises, n: int | None) -> Tensor:
    """Best and Fisher, Efficient simulation of the von Mises distribution (Applied Statistics 28, 1979)."""
    loc, kappa = (v.expand(_shape(d, n)).flatten() for v in _wide(d.loc, d.concentration))
    tau = 1.0 + sqrt(1.0 + 4.0 * kappa * kappa)
    rho = (tau - sqrt(2.0 * tau)) / (2.0 * kappa)
    # below 1e-5 the difference loses its digits; the series 1/kappa + kappa is then exact (as far as float64 goes)
    r = torch.where(kappa < 1e-5, 1.0 / kappa + kappa, (1.0 + rho * rho) / (2.0 * rho))

    def attempt(at: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        # u chooses the side with its half and the angle with the rest, so two uniforms are enough
        side = torch.where(u < 0.5, -1.0, 1.0)
        z = torch.cos(math.pi * torch.where(u < 0.5, 2.0 * u, 2.0 * u - 1.0))
        f = ((1.0 + r[at] * z) / (r[at] + z)).clamp(-1.0, 1.0)
        c = kappa[at] * (r[at] - f)
        return side * torch.acos(f), (c * (2.0 - c) > v) | (log(c / v) + 1.0 >= c)

    angle = rng._attempts("von_mises", _shape(d, n), attempt) + loc.reshape(_shape(d, n))
    return (torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi).to(d.loc.dtype)


# -------------------------------------------------------------------- counts and categories


@register(td.Bernoulli)
def _bernoulli(rng: Address, d: td.Bernoulli, n: int | None) -> Tensor:
    return rng.bernoulli(d.probs.detach().double().expand(_shape(d, n))).to(d.probs.dtype)


@register(td.Binomial)
def _binomial(rng: Address, d: td.Binomial, n: int | None) -> Tensor:
    total, p = (v.expand(_shape(d, n)) for v in _wide(d.total_count, d.probs))
    return discrete.binomial(rng, total, p).to(d.probs.dtype)


@register(td.Poisson)
def _poisson(rng: Address, d: td.Poisson, n: int | None) -> Tensor:
    return rng.poisson(d.rate.detach().double().expand(_shape(d, n))).to(d.rate.dtype)


@register(td.NegativeBinomial)
def _negative_binomial(rng: Address, d: td.NegativeBinomial, n: int | None) -> Tensor:
    total, logits = _wide(d.total_count, d.logits)
    rate = exp(log_gamma(rng, "gamma", _shape(d, n), total) + logits)
    return rng.poisson(rate).to(d.logits.dtype)


@register(td.Geometric)
def _geometric(rng: Address, d: td.Geometric, n: int | None) -> Tensor:
    p = d.probs.detach().double()
    return torch.floor(log(rng.uniform(_shape(d, n))) / torch.log1p(-p)).to(d.probs.dtype)


@register(td.Categorical)
def _categorical(rng: Address, d: td.Categorical, n: int | None) -> Tensor:
    return _categories(rng, d.logits, n, d.batch_shape)


def _categories(rng: Address, logits: Tensor, n: int | None, batch: tuple[int, ...], trailing: int = 1) -> Tensor:
    """Categories (n, *batch) of logits (*batch, K), or (n, *batch, trailing) for more than one draw of each."""
    u = rng.uniform((*_lead(n), *batch, trailing))
    flat = logits.detach().reshape(-1, logits.shape[-1]).to(rng.device, torch.float64)
    leading, rows = 1 if n is None else n, flat.shape[0]
    turned = u.reshape(leading, rows, trailing).transpose(0, 1).reshape(rows, leading * trailing)
    found = discrete.invert(flat, turned)
    found = found.reshape(rows, leading, trailing).transpose(0, 1).reshape(u.shape)
    return found.squeeze(-1) if trailing == 1 else found


@register(td.OneHotCategorical)
def _one_hot(rng: Address, d: td.OneHotCategorical, n: int | None) -> Tensor:
    index = _categories(rng, d.logits, n, d.batch_shape)
    return torch.nn.functional.one_hot(index, d.logits.shape[-1]).to(d.logits.dtype)


@register(td.Multinomial)
def _multinomial(rng: Address, d: td.Multinomial, n: int | None) -> Tensor:
    count = torch.zeros(_shape(d, n), dtype=d.logits.dtype, device=rng.device)
    if not d.total_count:
        return count
    index = _categories(rng, d.logits, n, d.batch_shape, d.total_count).reshape(*count.shape[:-1], d.total_count)
    return count.scatter_add_(-1, index, torch.ones_like(index, dtype=count.dtype))


@register(td.MixtureSameFamily)
def _mixture(rng: Address, d: td.MixtureSameFamily, n: int | None) -> Tensor:
    """Every component draws; the chosen one is kept."""
    which = sample(rng.at("mixture"), d.mixture_distribution, n)
    values = sample(rng.at("component"), d.component_distribution, n)
    event = len(d.event_shape)
    index = which.reshape(*which.shape, 1, *(1,) * event)
    axis = values.ndim - event - 1
    return values.gather(axis, index.expand(*index.shape[: axis + 1], *values.shape[axis + 1 :])).squeeze(axis)
