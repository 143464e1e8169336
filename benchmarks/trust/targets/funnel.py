"""Neal's funnel in 4 and 10 dimensions, from a N(0, 3) start.

v ~ N(0, 3), x_i ~ N(0, exp(v / 2)): a normalised law, so log Z = 0, and v is normal. The likelihood is its density over
that of the start. At v = -6 the x are 400 times narrower than at v = 6.
"""

from __future__ import annotations

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal

import motes


def truth() -> Truth:
    return Truth(0.0, {"v": 0.0, "v < -3": float(norm.cdf(-1)), "v > 3": float(norm.cdf(-1))})


def density(d: int) -> motes.Density:
    start = Normal(torch.zeros(d, dtype=torch.float64), 3.0)

    def log_likelihood(z: Tensor) -> Tensor:
        v, x = z[:, 0], z[:, 1:]
        funnel = Normal(torch.zeros_like(v), 3.0).log_prob(v) + Normal(0.0, (v[:, None] / 2).exp()).log_prob(x).sum(1)
        return funnel - start.log_prob(z).sum(1)

    return motes.Density(log_likelihood, start, vectorised=True)


FUNCTIONS = {"v": "x[0]", "v < -3": lambda x: (x[:, 0] < -3).double(), "v > 3": lambda x: (x[:, 0] > 3).double()}
TARGETS = [
    Target("funnel-4", "Neal's funnel, d = 4", truth, FUNCTIONS, on(lambda: density(4))),
    Target("funnel-10", "Neal's funnel, d = 10", truth, FUNCTIONS, on(lambda: density(10))),
]
