"""How far a temperature may rise in one step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHAPE = 0.1
"""The shape up to which weights of a heavy upper tail may come in at one step. For a Student t with 3 degrees of
freedom in 10 dimensions from a Gaussian, of which 256 particles have not seen the far tail when they come to it, log
evidences are low by .085, .03, .024 and .006 at shapes without a bound, up to .2, .15 and .1, standard error .05."""
UPPER = 0.2
"""The part of the particles, those with the largest log-likelihoods, whose excess tells how the tail falls off."""
LIGHT = 0.75
"""Standard deviations by which these exceed their least where the tail is light: 0.56 +- 0.06 for 256 draws of a normal
law, 0.9 for a squared or doubly exponential one."""


def next_temperature(
    log_weight: Tensor, log_likelihood: Tensor, now: float, conditional_ess: float, shape: float = math.inf
) -> float:
    """The next temperature, at which the conditional effective sample size falls to a part; 1 if it falls less far.

    The fraction is taken among the particles with positive weight and likelihood, so that a likelihood with -inf is
    split into its support and its size. Found to a thousandth by bisection on the logarithm of the increment, from the
    Gaussian guess that the fraction is exp(-increment^2 var(log-likelihood)).

    Args:
        log_weight: (N,) nats; some particle has both a positive weight and a positive likelihood.
        log_likelihood: (N,) nats.
        now: the temperature so far, in [0, 1).
        conditional_ess: the wanted fraction, in (0, 1).
        shape: the most that Hill's estimate of the shape of the weights' tail may be: weights with a shape of 1/2 or
            more have no variance, of which a sample of them shows nothing. The estimate is the rise of the temperature
            times the mean excess of the largest log-likelihoods.

    References:
        Zhou, Johansen & Aston (2016), Toward automatic model comparison: an adaptive SMC approach, JCGS 25(3), eq. 9.
        Hill (1975), A simple general approach to inference about the tail of a distribution, Annals of Statistics 3(5).
    """
    alive = (log_weight > -math.inf) & (log_likelihood > -math.inf)
    if not alive.all():
        log_weight, log_likelihood = log_weight[alive], log_likelihood[alive]
    weight = torch.softmax(log_weight, 0)
    temperature = _by_size(weight, log_likelihood, now, conditional_ess)
    excess = mean_excess(weight, log_likelihood) if shape < math.inf else 0.0
    return min(temperature, now + shape / excess) if excess > 0 else temperature


def mean_excess(weight: Tensor, value: Tensor) -> float:
    """By how much the largest of the values (N,), those in the upper `UPPER` of the weight, exceed their least.

    0 where that is no more than a normal law with their variance has.
    """
    order = value.argsort(descending=True)
    w, v = weight[order], value[order]
    last = min(int((w.cumsum(0) < UPPER).sum()), len(v) - 1)
    total = float(w[:last].sum())
    if not total > 0:
        return 0.0
    found = float(w[:last] @ (v[:last] - v[last])) / total
    spread = math.sqrt(float(w @ (v - w @ v).square()))
    return found if found > LIGHT * spread else 0.0


def _by_size(weight: Tensor, log_likelihood: Tensor, now: float, conditional_ess: float) -> float:
    """The next temperature by the conditional effective sample size, for normalised weights (N,)."""
    gain = log_likelihood - log_likelihood.max()

    def excess(log_increment: float) -> float:
        g = torch.mul(gain, math.exp(log_increment)).exp_()
        first, second = float(weight @ g), float(weight @ g.square_())
        return math.log(first) + math.log(first / second) - math.log(conditional_ess) if second > 0 else -math.inf

    high = math.log(1.0 - now)
    if len(weight) < 2 or excess(high) >= 0:
        return 1.0
    spread = float(weight @ (gain - weight @ gain).square())
    guess = 0.5 * math.log(-math.log(conditional_ess) / spread) if 0 < spread < math.inf else high
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
        fell = -(value + math.log(conditional_ess))
        guess = guess + 0.5 * math.log(-math.log(conditional_ess) / fell) if 0 < fell < math.inf else math.nan
    return min(1.0, now + math.exp(guess))
