"""A hard wall: a weighted mean of 11 uniforms under Dirichlet weights, legal in a thin band, -1e300 elsewhere.

w ~ Dirichlet(1, ..., 1) in 11 dimensions, u_i ~ U(0, 1); the likelihood is 1 where .70 < w . u < .71, else exp(-1e300).
With G_i ~ Exp(1) the weights are G_i / sum G, so w . u < x is the event sum G_i (u_i - x) < 0: a sum of independent
variables whose characteristic function is known, and one quadrature (Gil-Pelaez) gives its probability. With one factor
replaced by that of u exp(it G (u - x)) it gives the mean of u_0 in the band.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.integrate import quad
from torch import Tensor
from torch.distributions import Dirichlet, Uniform

import motes

D, LOW, HIGH = 11, 0.70, 0.71


def characteristic(t: float, x: float) -> complex:
    """E exp(it G (u - x))."""
    return (cmath.log(1 + 1j * t * x) - cmath.log(1 - 1j * t * (1 - x))) / (1j * t)


def with_u(t: float, x: float) -> complex:
    """E u exp(it G (u - x)), as the integral of u / (1 - it (u - x))."""
    return (characteristic(t, x) * (1 + 1j * t * x) - 1) / (1j * t)


def below(x: float, transform: Callable[[float], complex], mean: float) -> float:
    """E[f; w . u < x] from t to E f exp(it sum G (u - x)), where E f is `mean`."""
    value, _ = quad(lambda t: transform(t).imag / t, 0, math.inf, epsabs=1e-13, epsrel=1e-11, limit=1000)
    return 0.5 * mean - value / math.pi


def truth() -> Truth:
    def band(transform: Callable[[float, float], complex], mean: float) -> float:
        low, high = (below(x, lambda t, x=x: transform(t, x), mean) for x in (LOW, HIGH))
        return high - low

    inside = band(lambda t, x: characteristic(t, x) ** D, 1.0)
    u = band(lambda t, x: characteristic(t, x) ** (D - 1) * with_u(t, x), 0.5)
    return Truth(math.log(inside), {"u0": u / inside, "w0": 1 / D})


def density() -> motes.Density:
    one = torch.ones(D, dtype=torch.float64)

    def log_likelihood(v: dict[str, Tensor]) -> Tensor:
        mean = (v["w"] * v["u"]).sum(1)
        return torch.where((mean > LOW) & (mean < HIGH), 0 * one[0], -1e300 * one[0])

    return motes.Density(log_likelihood, {"w": Dirichlet(one), "u": Uniform(0 * one, one)}, vectorised=True)


TARGETS = [
    Target("hard-wall", "A thin band legal, -1e300 elsewhere, d = 21", truth, {"u0": "u[0]", "w0": "w[0]"}, on(density))
]
