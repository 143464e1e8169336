"""Bernoulli, Poisson, integer and categorical numbers, and permutations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.errors import MotesError

from .address import Address
from .elementary import exp, log, sqrt
from .gamma import as_tensor, check

# log k! for k < 16; above, Stirling's series in log_factorial is exact to 1e-16 relative
COUNT_LIMIT = 1e9  # log k! then keeps six digits behind the point
LOG_FACTORIAL = torch.tensor([math.log(math.factorial(k)) for k in range(16)], dtype=torch.float64)


def bernoulli(rng: Address, p: Tensor | float) -> Tensor:
    """True with probability p, the shape of p."""
    p = as_tensor(rng, p)
    bad = ~((p >= 0.0) & (p <= 1.0))
    if bool(bad.any()):
        raise MotesError(f"bernoulli: p must lie in [0, 1]; it does not at {bad.nonzero()[:5].tolist()}")
    return rng._draw("uniform", "bernoulli", tuple(p.shape), torch.float64) < p


def integers(rng: Address, shape: tuple[int, ...], high: int) -> Tensor:
    """0..high-1: the high part of the product of `high` and 64 random bits, so equal up to high / 2^64."""
    if not 0 < high <= 1 << 32:
        raise MotesError(f"integers: high must lie in 1..2^32, got {high}")
    w = rng._draw("bits", "integers", (*shape, 2), torch.int64) if shape else rng._words("integers", 2)
    w0, w1 = w[..., 0], w[..., 1]
    # (w0 2^32 + w1) high / 2^64 in two halves; each product has at most 64 bits, so shift and mask the sign away
    low = ((w1 * high) >> 32) & 0xFFFFFFFF
    top = w0 * high
    carry = ((top & 0xFFFFFFFF) + low) >> 32
    return ((top >> 32) & 0xFFFFFFFF) + carry


def permutation(rng: Address, n: int) -> Tensor:
    """A uniformly random order of 0..n-1, the same whatever shard is bound: item i gets 63 random bits, then sort."""
    if n < 0:
        raise MotesError(f"permutation: n must not be negative, got {n}")
    w = rng._whole()._draw("bits", "permutation", (n, 2), torch.int64)
    return torch.argsort((w[:, 0] << 31) | (w[:, 1] >> 1), stable=True)


def categorical(rng: Address, log_weight: Tensor, n: int | None, row: Tensor | None) -> Tensor:
    """(n, K) -> one category for each row; (K,) and n -> n categories; (R, K) and row (n,) -> one of each row named."""
    if row is not None:
        return by_rows(rng, log_weight, n, row)
    top = check_log_weight(log_weight)
    weight = log_weight.to(rng.device, torch.float64)
    if weight.ndim == 2:
        if n is not None and n != weight.shape[0]:
            raise MotesError(f"categorical: n = {n} does not agree with {weight.shape[0]} rows of log-weights")
        u = rng._draw("uniform", "categorical", (weight.shape[0],), torch.float64)
        return invert(weight, u.unsqueeze(-1), top).squeeze(-1)
    u = rng._draw("uniform", "categorical", () if n is None else (n,), torch.float64)
    return invert(weight.unsqueeze(0), u.reshape(1, -1), top).reshape(u.shape)


def by_rows(rng: Address, log_weight: Tensor, n: int | None, row: Tensor) -> Tensor:
    """The same numbers as of `log_weight[row]`, with running sums of each row that is named, once."""
    if log_weight.ndim != 2 or row.ndim != 1 or (n is not None and n != len(row)):
        raise MotesError(
            f"categorical: row (n,) names rows of log-weights (R, K), n = {len(row) if n is None else n} of them; got "
            f"{tuple(row.shape)} and {tuple(log_weight.shape)}"
        )
    log_weight, row = log_weight.to(rng.device), row.to(rng.device)
    used, which, count = torch.unique(row, return_inverse=True, return_counts=True)
    named = log_weight if len(used) == len(log_weight) else log_weight[used]
    top = check_log_weight(named, used)
    u = rng._draw("uniform", "categorical", (len(row),), torch.float64)
    order = torch.argsort(which, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(row), device=rng.device) - (count.cumsum(0) - count)[which[order]]
    grid = u.new_zeros(len(used), int(count.max()) if len(row) else 0)
    grid[which, place] = u
    return invert(named.to(torch.float64), grid, top)[which, place]


def invert(log_weight: Tensor, u: Tensor, top: Tensor | None = None) -> Tensor:
    """The categories (rows, m) at which the running sums of the weights (rows, K) pass u (rows, m)."""
    top = log_weight.amax(-1) if top is None else top.to(log_weight)
    total = (log_weight - top[:, None]).exp_().cumsum_(-1)
    if total.is_cuda:
        total = total.cummax(-1).values  # a parallel scan may step back by a rounding error
    # u <= 1 - 2^-53 takes at least half a unit of the last place off the total, so the product rounds to less than it
    # the first category whose running sum exceeds u * end: its own weight is then positive
    return torch.searchsorted(total, (u * total[..., -1:]).contiguous(), right=True)


def check_log_weight(log_weight: Tensor, names: Tensor | None = None) -> Tensor:
    """The largest of each row, (n,) or (1,), or an error for what no category can be drawn from; rows have `names`."""
    if log_weight.ndim not in (1, 2) or log_weight.shape[-1] == 0:
        raise MotesError(f"categorical: log_weight must be (K,) or (n, K) with K > 0, got {tuple(log_weight.shape)}")
    # one reduction finds every fault: the maximum is NaN if any entry is, +inf if any is, -inf only if all are
    top = torch.atleast_1d(log_weight.amax(-1))
    for fault, text in (
        (torch.isnan(top), "NaN among the log-weights"),
        (top == torch.inf, "+inf among the log-weights"),
        (top == -torch.inf, "all log-weights are -inf, so there is nothing to draw"),
    ):
        if bool(fault.any()):
            at = fault.nonzero()[:10, 0]
            rows = "" if log_weight.ndim == 1 else f" (rows {(at if names is None else names[at]).tolist()})"
            raise MotesError(f"categorical: {text}{rows}; mend the model that made them")
    return top


def log_factorial(k: Tensor) -> Tensor:
    """log k! for whole float64 numbers."""
    x = k.clamp_min(16.0) + 1.0
    z = 1.0 / (x * x)
    series = (1.0 / 12.0 - z * (1.0 / 360.0 - z * (1.0 / 1260.0 - z * (1.0 / 1680.0 - z / 1188.0)))) / x
    stirling = (x - 0.5) * log(x) - x + 0.91893853320467274178 + series
    table = LOG_FACTORIAL.to(k.device)
    return torch.where(k < 16.0, table[k.clamp(0.0, 15.0).long()], stirling)


def poisson(rng: Address, rate: Tensor | float) -> Tensor:
    """Poisson counts in float64, the shape of `rate`; rate 0 gives 0."""
    rate = as_tensor(rng, rate)
    rate = check(rng, "rate", rate, tuple(rate.shape), zero=True)
    if bool((rate > COUNT_LIMIT).any()):
        raise MotesError("poisson: rates above 1e9 are not supported; draw a normal with that mean and variance")
    small = rate < 10.0
    value = torch.zeros_like(rate)
    if bool(small.any()):
        value = _poisson_small(rng, torch.where(small, rate, 0.0))
    if not bool(small.all()):
        value = torch.where(small, value, _poisson_large(rng, torch.where(small, 10.0, rate)))
    return value


def _poisson_small(rng: Address, rate: Tensor) -> Tensor:
    """Inversion: walk the distribution function until it passes u."""
    u = rng._draw("uniform", "poisson.small", tuple(rate.shape), torch.float64)
    k = torch.zeros_like(u)
    term = exp(-rate)
    total = term.clone()
    for i in range(1, 64):  # at rate 10, P(k > 63) < 1e-27: below the spacing of u
        above = u > total
        if not bool(above.any()):
            break
        k = k + above
        term = term * rate / i
        total = total + term
    return k


def _poisson_large(rng: Address, rate: Tensor) -> Tensor:
    """Hormann, The transformed rejection method for generating Poisson random variables (1993), algorithm PTRS."""
    mu = rate.flatten()
    b = 0.931 + 2.53 * sqrt(mu)
    a = -0.059 + 0.02483 * b
    inv_alpha = 1.1239 + 1.1328 / (b - 3.4)
    log_mu = log(mu)

    def attempt(at: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        m, b_, a_ = mu[at], b[at], a[at]
        u = u - 0.5
        us = 0.5 - u.abs()
        k = torch.floor((2.0 * a_ / us + b_) * u + m + 0.43)
        left = log(v * inv_alpha[at] / (a_ / (us * us) + b_))
        right = k * log_mu[at] - m - log_factorial(k.clamp_min(0.0))
        return k, (k >= 0.0) & (left <= right)

    return rng._attempts("poisson.large", tuple(rate.shape), attempt)


def binomial(rng: Address, total_count: Tensor, p: Tensor) -> Tensor:
    """Binomial counts in float64; `total_count` and `p` have one shape."""
    total = check(rng, "total_count", as_tensor(rng, total_count), tuple(p.shape), zero=True)
    p = as_tensor(rng, p)
    bad = ~((p >= 0.0) & (p <= 1.0)) | (total != torch.floor(total)) | (total > COUNT_LIMIT)
    if bool(bad.any()):
        where = bad.nonzero()[:5].tolist()
        raise MotesError(f"binomial: p must lie in [0, 1] and total_count be whole and at most 1e9; not so at {where}")
    swap = p > 0.5
    q = torch.where(swap, 1.0 - p, p)
    small = total * q < 10.0
    value = torch.zeros_like(total)
    if bool(small.any()):
        value = _binomial_small(rng, torch.where(small, total, 0.0), q)
    if not bool(small.all()):
        large = _binomial_large(rng, torch.where(small, 20.0, total), torch.where(small, 0.5, q))
        value = torch.where(small, value, large)
    return torch.where(swap, total - value, value)


def _binomial_small(rng: Address, total: Tensor, p: Tensor) -> Tensor:
    """Inversion: walk the distribution function until it passes u."""
    u = rng._draw("uniform", "binomial.small", tuple(p.shape), torch.float64)
    k = torch.zeros_like(u)
    term = exp(total * torch.log1p(-p))
    odds = p / (1.0 - p)
    reached = term.clone()
    for i in range(1, 64):
        above = (u > reached) & (k < total)
        if not bool(above.any()):
            break
        k = k + above
        term = term * (total - (i - 1.0)).clamp_min(0.0) / i * odds
        reached = reached + term
    return k


def _binomial_large(rng: Address, total: Tensor, p: Tensor) -> Tensor:
    """Hormann, The generation of binomial random variates (1993), algorithm BTRS."""
    n, p = total.flatten(), p.flatten()
    sd = sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * sd
    a = -0.0873 + 0.0248 * b + 0.01 * p
    alpha = (2.83 + 5.1 / b) * sd
    log_odds = log(p / (1.0 - p))
    mode = torch.floor((n + 1.0) * p)
    peak = log_factorial(mode) + log_factorial(n - mode)

    def attempt(at: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        n_, a_, b_ = n[at], a[at], b[at]
        u = u - 0.5
        us = 0.5 - u.abs()
        k = torch.floor((2.0 * a_ / us + b_) * u + n_ * p[at] + 0.5)
        inside = (k >= 0.0) & (k <= n_)
        k = torch.minimum(k.clamp_min(0.0), n_)
        left = log(v * alpha[at] / (a_ / (us * us) + b_))
        right = peak[at] - log_factorial(k) - log_factorial(n_ - k) + (k - mode[at]) * log_odds[at]
        return k, inside & (left <= right)

    return rng._attempts("binomial.large", tuple(total.shape), attempt)
