"""How far a temperature may rise in one step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def next_temperature(log_weight: Tensor, log_likelihood: Tensor, now: float, cess: float) -> float:
    """The next temperature: the conditional effective sample size falls to `cess`, or 1 if it does not fall that far.

    The fraction is taken among the particles with positive weight and likelihood, so that a likelihood with -inf is
    split into its support and its size. Found to a thousandth by bisection on the logarithm of the increment, from the
    Gaussian guess that the fraction is exp(-increment^2 var(log-likelihood)).

    Args:
        log_weight: (N,) nats; some particle has both a positive weight and a positive likelihood.
        log_likelihood: (N,) nats.
        now: the temperature so far, in [0, 1).
        cess: the wanted fraction, in (0, 1).

    References:
        Zhou, Johansen & Aston (2016), Toward automatic model comparison: an adaptive SMC approach, JCGS 25(3), eq. 9.
    """
    alive = (log_weight > -math.inf) & (log_likelihood > -math.inf)
    if not alive.all():
        log_weight, log_likelihood = log_weight[alive], log_likelihood[alive]
    weight = torch.softmax(log_weight, 0)
    gain = log_likelihood - log_likelihood.max()

    def excess(log_increment: float) -> float:
        g = torch.mul(gain, math.exp(log_increment)).exp_()
        first, second = float(weight @ g), float(weight @ g.square_())
        return math.log(first) + math.log(first / second) - math.log(cess) if second > 0 else -math.inf

    high = math.log(1.0 - now)
    if len(weight) < 2 or excess(high) >= 0:
        return 1.0
    spread = float(weight @ (gain - weight @ gain).square())
    guess = 0.5 * math.log(-math.log(cess) / spread) if 0 < spread < math.inf else high
    low, guess = high - 4.0, min(guess, high - 1e-3)
    while excess(low) < 0:
        high, low = low, low - 4.0
    for _ in range(60):
        if not low < guess < high:
            guess = 0.5 * (low + high)
        value = excess(guess)
        low, high = (guess, high) if value >= 0 else (low, guess)
        if high - low < 1e-6 or abs(value) < 1e-3:
            break
        # log(1/fraction) grows like the square of the increment, which gives the next guess; else halve
        fell = -(value + math.log(cess))
        guess = guess + 0.5 * math.log(-math.log(cess) / fell) if 0 < fell < math.inf else math.nan
    return min(1.0, now + math.exp(guess))
