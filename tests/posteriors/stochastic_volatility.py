"""Stochastic volatility on simulated returns, d = 203: Kim, Shephard & Chib (1998), priors of the Stan user's guide."""

from __future__ import annotations

import torch
from torch.distributions import Cauchy, HalfCauchy, Normal, Uniform

from . import data
from .base import Named, Posterior, numbered, real
from .recursion import recurse

NAME = "simulated-stochastic_volatility"


def posterior() -> Posterior:
    """Log-variances mu + x_t with x_t = phi x_{t-1} + sigma shock_t, not centred: the shocks are standard normal."""
    square = real(data.returns()).square()
    one = real(1.0)
    prior = {
        "mu": Cauchy(0 * one, 10 * one),
        "phi": Uniform(-one, one),
        "sigma": HalfCauchy(5 * one),
        "shock": Normal((0 * one).expand(len(square)), one),
    }

    def volatility(p: Named):
        shock = p["sigma"][:, None] * p["shock"]
        first = shock[:, :1] / (1 - p["phi"].square()).sqrt()[:, None]
        return p["mu"][:, None] + recurse(torch.cat([first, shock[:, 1:]], 1), p["phi"])

    def log_likelihood(p: Named):
        h = volatility(p)
        return -0.5 * torch.addcmul(h, square, (-h).exp()).sum(1)

    return Posterior(
        NAME,
        log_likelihood,
        prior,
        lambda p: {"mu": p["mu"], "phi": p["phi"], "sigma": p["sigma"], **numbered("h", volatility(p))},
        dict,
    )
