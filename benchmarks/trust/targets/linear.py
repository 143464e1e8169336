"""Regressions with an unknown scale of the noise: 30 numbers, and one predictor, not centred and centred.

y ~ N(X b, sigma), b ~ N(0, 100), sigma ~ HalfCauchy(2.5). Given sigma all is Gaussian, and sigma is left to quadrature.
The predictor at 60 +- 4 makes intercept and slope correlated by .998.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.integrate import quad
from torch import Tensor
from torch.distributions import HalfCauchy, Normal

import motes
from motes.density import DataAnnealing

WIDE, SCALE = 100.0, 2.5


@dataclass(frozen=True)
class Regression:
    """A design (n, k) and data (n,), with the names of the coefficients."""

    design: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]

    def given(self, sigma: float) -> tuple[float, np.ndarray]:
        """log p(y | sigma) and the mean of the coefficients."""
        x, n = self.design, len(self.y)
        precision = x.T @ x / sigma**2 + np.eye(x.shape[1]) / WIDE**2
        mean = np.linalg.solve(precision, x.T @ self.y / sigma**2)
        square = self.y @ (self.y - x @ mean) / sigma**2  # y' (s^2 I + w^2 X X')^-1 y
        volume = 2 * n * math.log(sigma) + np.linalg.slogdet(WIDE**2 * precision)[1]
        return -0.5 * float(n * math.log(2 * math.pi) + volume + square), mean

    def truth(self) -> Truth:
        """By quadrature over log sigma, relative to the highest integrand."""

        def log_integrand(u: float) -> float:
            sigma = math.exp(u)
            return self.given(sigma)[0] + u + math.log(2 / math.pi / SCALE) - math.log1p((sigma / SCALE) ** 2)

        grid = np.linspace(-3, 4, 701)
        heights = [log_integrand(u) for u in grid]
        top, at = max(heights), float(grid[int(np.argmax(heights))])

        def integral(f: Callable[[float], float]) -> float:
            def integrand(u: float) -> float:
                return math.exp(log_integrand(u) - top) * f(u)

            parts = [(at - 3, at), (at, at + 5)]
            return sum(quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=400)[0] for a, b in parts)

        z = integral(lambda u: 1.0)
        means = {
            name: integral(lambda u, i=i: float(self.given(math.exp(u))[1][i])) / z for i, name in enumerate(self.names)
        }
        return Truth(top + math.log(z), {**means, "sigma": integral(math.exp) / z})

    def prior(self) -> dict[str, Normal | HalfCauchy]:
        one = torch.ones(self.design.shape[1], dtype=torch.float64)
        return {"b": Normal(0 * one, WIDE * one), "sigma": HalfCauchy(SCALE * one[0])}

    def density(self) -> motes.Density:
        x, y = torch.tensor(self.design), torch.tensor(self.y)

        def log_likelihood(v: dict[str, Tensor]) -> Tensor:
            return Normal(v["b"] @ x.T, v["sigma"][:, None]).log_prob(y).sum(1)

        return motes.Density(log_likelihood, self.prior(), vectorised=True)

    def one_by_one(self) -> DataAnnealing:
        def log_likelihood(v: dict[str, Tensor], rows: dict[str, Tensor]) -> Tensor:
            return Normal(v["b"] @ rows["x"].T, v["sigma"][:, None]).log_prob(rows["y"])

        rows = {"x": torch.tensor(self.design), "y": torch.tensor(self.y)}
        return DataAnnealing(log_likelihood, self.prior(), rows, vectorised=True)

    def target(self, name: str, title: str, easy: bool = False) -> Target:
        functions = {n: f"b[{i}]" for i, n in enumerate(self.names)} | {"sigma": "sigma"}
        return Target(name, title, self.truth, functions, on(self.density, data=self.one_by_one), easy=easy)


def numbers() -> Regression:
    y = np.round(np.random.default_rng(30).normal(12, 4, 30), 1)
    return Regression(np.ones((30, 1)), y, ("mean",))


def predictor(centred: bool) -> Regression:
    rng = np.random.default_rng(40)
    x = np.round(rng.normal(60, 4, 40), 1)
    y = np.round(5 + 0.7 * x + rng.normal(0, 3, 40), 1)
    return Regression(np.stack([np.ones(40), x - x.mean() if centred else x], 1), y, ("intercept", "slope"))


TARGETS = [
    numbers().target("mean-and-sd", "Mean and standard deviation of 30 numbers"),
    predictor(False).target("regression-raw", "Regression on one predictor at 60 ± 4, not centred"),
    predictor(True).target("regression-centred", "Regression on one predictor, centred", easy=True),
]
