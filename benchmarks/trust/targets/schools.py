"""Eight schools, centred, with the prior of the effects divided out: a funnel with a narrow neck at small tau; and not.

y_j ~ N(theta_j, sigma_j), theta_j ~ N(mu, tau), mu ~ N(0, 5), tau ~ HalfCauchy(5). For a sampler that wants independent
priors the law of theta given mu and tau is part of the likelihood, over the reference N(0, 10) that stands as prior of
theta. That leaves the posterior and the evidence alone: given mu and tau, y_j is N(mu, sigma_j^2 + tau^2), mu can be
integrated out in closed form, and tau is left to quadrature. Written not centred, theta = mu + tau times a N(0, 1), the
same model is easy.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.integrate import quad
from torch import Tensor
from torch.distributions import HalfCauchy, Normal

import motes

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
WIDE = 10.0


def given(tau: float) -> tuple[float, float]:
    """log p(y | tau), mu integrated out, and E[mu | y, tau]."""
    precision = 1 / (SIGMA**2 + tau**2)
    total, mean = precision.sum() + 1 / 25, (precision * Y).sum()
    square = (precision * Y**2).sum() - mean**2 / total
    return 0.5 * float(
        np.log(precision).sum() - math.log(25 * total) - 8 * math.log(2 * math.pi) - square
    ), mean / total


def truth() -> Truth:
    top = given(1.0)[0]

    def integral(f, low: float = 0.0, high: float = math.inf) -> float:
        """Over tau = 5 tan(a): da is half a Cauchy."""
        a = [math.atan(v / 5) if v < math.inf else math.pi / 2 for v in (low, high)]

        def integrand(angle: float) -> float:
            tau = 5 * math.tan(angle)
            value, mu = given(tau)
            return math.exp(value - top) * f(tau, mu) * 2 / math.pi

        return quad(integrand, *a, epsabs=1e-13, epsrel=1e-11, limit=400)[0]

    z = integral(lambda tau, mu: 1.0)
    return Truth(
        top + math.log(z),
        {
            "tau": integral(lambda tau, mu: tau) / z,
            "tau < 1": integral(lambda tau, mu: 1.0, 0, 1) / z,
            "mu": integral(lambda tau, mu: mu) / z,
        },
    )


Y_, SIGMA_, ONE = torch.tensor(Y), torch.tensor(SIGMA), torch.ones(8, dtype=torch.float64)
HYPER = {"mu": Normal(0 * ONE[0], 5 * ONE[0]), "tau": HalfCauchy(5 * ONE[0])}


def centred() -> motes.Density:
    def log_likelihood(v: dict[str, Tensor]) -> Tensor:
        theta = v["theta"]
        prior = Normal(v["mu"][:, None], v["tau"][:, None]).log_prob(theta) - Normal(0 * ONE, WIDE).log_prob(theta)
        return (Normal(theta, SIGMA_).log_prob(Y_) + prior).sum(1)

    return motes.Density(log_likelihood, {**HYPER, "theta": Normal(0 * ONE, WIDE * ONE)}, vectorised=True)


def not_centred() -> motes.Density:
    def log_likelihood(v: dict[str, Tensor]) -> Tensor:
        return Normal(v["mu"][:, None] + v["tau"][:, None] * v["z"], SIGMA_).log_prob(Y_).sum(1)

    return motes.Density(log_likelihood, {**HYPER, "z": Normal(0 * ONE, ONE)}, vectorised=True)


FUNCTIONS = {"tau": "tau", "tau < 1": lambda v: (v["tau"] < 1).double(), "mu": "mu"}
TARGETS = [
    Target("schools", "Eight schools, centred, the prior of the effects divided out", truth, FUNCTIONS, on(centred)),
    Target("schools-plain", "Eight schools, not centred", truth, FUNCTIONS, on(not_centred), easy=True),
]
