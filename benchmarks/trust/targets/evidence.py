"""The targets of the benchmark of evidence (`_evidence_targets.py`, with their log Z), and what their means are.

Gaussian: conjugate. Shell: by symmetry and a radial quadrature. Many-Well: the quadrature of one well. Mixture: from
its centres. Regression: given the noise the coefficients are Gaussian; the noise is left to quadrature.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from benchmarks import _evidence_targets as known
from benchmarks._evidence_motes import plain
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Function, Target, Truth
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor


def positive(z: Tensor) -> Tensor:
    return (z[:, 0] > 0).double()


def gaussian(d: int) -> Truth:
    mean, variance = 2 / 1.09, 0.09 / 1.09
    return Truth(known.gaussian(d).log_z, {"x0": mean, "x0^2": mean**2 + variance})


def shell() -> Truth:
    def radial(power: int) -> float:
        return quad(lambda r: r**power * math.exp(-0.5 * ((r - 2) / 0.1) ** 2), 1, 3, epsabs=0, epsrel=1e-12)[0]

    return Truth(known.shell(5).log_z, {"r": radial(5) / radial(4), "x0 > 0": 0.5})


def many_well(d: int) -> Truth:
    def one(f, low: float = -6.0) -> float:
        return quad(lambda x: f(x) * math.exp(-(x**4) + 6 * x**2 + 0.5 * x), low, 6, epsabs=0, epsrel=1e-12)[0]

    z = one(lambda x: 1.0)
    return Truth(known.many_well(d).log_z, {"x0": one(lambda x: x) / z, "x0 > 0": one(lambda x: 1.0, 0.0) / z})


def mixture() -> Truth:
    centres = np.random.default_rng(40).uniform(-40, 40, (40, 2))
    right = norm.cdf(centres[:, 0] / math.log1p(math.e)).mean()
    return Truth(known.mixture().log_z, {"x0": float(centres[:, 0].mean()), "x0 > 0": float(right)})


def regression() -> Truth:
    x, y = known.regression_data(20, 100, 0.9)
    values, vectors = np.linalg.eigh(x @ x.T)
    rotated, back = vectors.T @ y, x.T @ vectors

    def given(v: float) -> tuple[float, float]:
        """The log of the integrand at log sd = v, and the mean of the first coefficient there."""
        variance = np.maximum(values, 0) + math.exp(2 * v)
        return -0.5 * float((np.log(variance) + rotated**2 / variance).sum() + v * v), float(
            back[0] @ (rotated / variance)
        )

    top = max(given(v)[0] for v in np.linspace(-2, 2, 401))

    def integral(f) -> float:
        def integrand(v: float) -> float:
            height, mean = given(v)
            return math.exp(height - top) * f(v, mean)

        return quad(integrand, -3, 3, epsabs=0, epsrel=1e-11, limit=400, points=[-0.4])[0]

    z = integral(lambda v, mean: 1.0)
    means = {"b0": integral(lambda v, mean: mean) / z, "log sd": integral(lambda v, mean: v) / z}
    return Truth(known.regression().log_z, means)


def target(name: str, make, truth, functions: dict[str, Function], easy: bool = False, without=(), **more) -> Target:
    return Target(name, make().title, truth, functions, on(lambda: plain(make()), without=without), easy=easy, **more)


def radius(z: Tensor) -> Tensor:
    return torch.linalg.vector_norm(z, dim=1)


WELL = {"x0": "x[0]", "x0 > 0": positive}
GAUSSIAN = {"x0": "x[0]", "x0^2": lambda z: z[:, 0].square()}
TARGETS = [
    target("gaussian-10", lambda: known.gaussian(10), lambda: gaussian(10), GAUSSIAN, easy=True),
    target("gaussian-30", lambda: known.gaussian(30), lambda: gaussian(30), GAUSSIAN, easy=True),
    target(
        "gaussian-300", lambda: known.gaussian(300), lambda: gaussian(300), GAUSSIAN, without=("NestedSampling", "AMIS")
    ),
    target(
        "gaussian-1000",
        lambda: known.gaussian(1000),
        lambda: gaussian(1000),
        GAUSSIAN,
        without=("NestedSampling", "AMIS"),
    ),
    target("regression-20", known.regression, regression, {"b0": "x[0]", "log sd": "x[19]"}, easy=True),
    target(
        "shell-5",
        lambda: known.shell(5),
        shell,
        {"r": radius, "x0 > 0": positive},
    ),
    target("many-well-8", lambda: known.many_well(8), lambda: many_well(8), WELL),
    target("many-well-32", lambda: known.many_well(32), lambda: many_well(32), WELL),
    target("mixture-2", known.mixture, mixture, WELL),
]
