"""Draws of several temperatures as one mixture: weights, the next temperature, the error of the evidence."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def component(temperature: float, log_z: float, log_likelihood: Tensor) -> Tensor:
    """b log L - log Z_b, where 0^0 is 1: the density of draws at a temperature b relative to that at 0, nats."""
    return temperature * log_likelihood - log_z if temperature > 0 else torch.zeros_like(log_likelihood) - log_z


def mixture_weights(mixture: Tensor, log_likelihood: Tensor, temperature: float) -> Tensor:
    """Log-weights (N, K) for `temperature` of draws from the mixture of K temperatures, N of each.

    log L^b - log((1 / K) sum_k L^b_k / Z_k): the balance heuristic of multiple importance sampling, in which a draw's
    weight does not depend on the temperature that it came from.

    Args:
        mixture: (N, K) the logarithm of that sum.
        log_likelihood: (N, K) nats.
    """
    return component(temperature, 0.0, log_likelihood) - mixture + math.log(mixture.shape[1])


def log_total(log_weight: Tensor) -> float:
    """The log-mean-exp of all entries, nats."""
    return float(log_weight.flatten().logsumexp(0)) - math.log(log_weight.numel())


def worth(log_weight: Tensor) -> float:
    """The effective sample size of all entries together."""
    flat = log_weight.flatten()
    return float((2 * flat.logsumexp(0) - (2 * flat).logsumexp(0)).exp()) if flat.max() > -math.inf else 0.0


def next_temperature(mixture: Tensor, log_likelihood: Tensor, now: float, ess: float) -> float:
    """The highest temperature at which the pool is worth `ess` draws; `now` again if none above it is.

    Args:
        mixture, log_likelihood: as for `mixture_weights`.
        now: the last temperature.
        ess: the wanted effective sample size, among the draws that have a likelihood.
    """
    alive = log_likelihood > -math.inf
    if not alive.any():
        return 1.0
    base, gain = -mixture[alive], log_likelihood[alive]
    # a likelihood with zeros leaves fewer at once, which no smaller step could mend
    ess = ess * len(gain) / alive.numel() if now == 0.0 else ess

    def enough(log_increment: float) -> bool:
        return worth(base + (now + math.exp(log_increment)) * gain) >= ess

    high = math.log(1.0 - now)
    if enough(high):
        return 1.0
    low = high - 1.0
    while not enough(low):
        high, low = low, low - 4.0
        if low < -700 or now + math.exp(low) == now:
            return now
    while high - low > 1e-4:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if enough(middle) else (low, middle)
    return now + math.exp(low)


def influence(ladder: Tensor, log_z: Tensor, log_likelihood: Tensor) -> Tensor:
    """(N, T) what each draw adds to the error of the last log evidence, to first order.

    Z_k is a mean of weights over the generations before k, which contain the earlier Z_j: d log Z_k is the mean of
    w / Z_k - 1 (within each generation around its own mean, for their sizes are fixed) plus sum_j c_kj d log Z_j with
    c_kj the mean of w / Z_k times the share of component j in the mixture.

    Args:
        ladder: (K,) temperatures; Z_k comes from the generations before k, and once more from all T of them.
        log_z: (K,) nats.
        log_likelihood: (N, T) nats, T = K or K - 1.
    """
    n, drawn = log_likelihood.shape
    found: list[Tensor] = [torch.zeros_like(log_likelihood)]  # of Z_0 = 1
    again = [(1.0, drawn)] if drawn == len(ladder) else []
    for temperature, m in [*((b, k) for k, b in enumerate(ladder.tolist()) if k > 0), *again]:
        part = log_likelihood[:, :m]
        powers = torch.stack([component(float(ladder[j]), float(log_z[j]), part) for j in range(m)], -1)
        log_weight = mixture_weights(powers.logsumexp(-1), part, temperature)
        w = (log_weight - log_total(log_weight)).exp()
        own = torch.zeros_like(log_likelihood)
        own[:, :m] = (w - w.mean(0)) / (n * m)
        share = torch.tensordot(w, powers.softmax(-1), 2) / (n * m)
        for j in range(1, m):
            own += share[j] * found[j]
        found.append(own)
    return found[-1]
