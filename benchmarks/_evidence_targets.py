"""Targets with a known evidence, for motes (torch), blackjax (jax) and everything that calls a NumPy function.

Each is a prior, normal around zero or uniform in a box, and a log-likelihood that is written once, for whatever library
of arrays it is given. `python benchmarks/_evidence_targets.py` integrates those in few dimensions over a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import gammaln, logsumexp, ndtri

LogLikelihood = Callable[[Any], Any]


@dataclass(frozen=True)
class Target:
    """A prior over `dim` reals, a likelihood, and the exact logarithm of its mean under the prior.

    Attributes:
        box: the prior is uniform on [-scale, scale]^dim; else it is N(0, scale^2 I).
        likelihood: from a library of arrays to a function from points (..., dim) to nats (...).
    """

    title: str
    dim: int
    scale: float
    box: bool
    likelihood: Callable[[SimpleNamespace], LogLikelihood]
    log_z: float

    def from_cube(self, u: np.ndarray) -> np.ndarray:
        """Points of the unit cube, as draws of the prior."""
        return self.scale * (2 * u - 1 if self.box else ndtri(u))


NUMPY = SimpleNamespace(asarray=np.asarray, exp=np.exp, logsumexp=lambda v: logsumexp(v, axis=-1))


def gaussian(d: int) -> Target:
    constant = -0.5 * math.log(2 * math.pi * 0.09)

    def likelihood(_: SimpleNamespace) -> LogLikelihood:
        return lambda x: (-0.5 * ((x - 2) / 0.3) ** 2 + constant).sum(-1)

    log_z = d * (-math.log(2 * math.pi * 1.09) / 2 - 2 / 1.09)
    return Target(f"Gaussian, d = {d}", d, 1.0, False, likelihood, log_z)


def shell(d: int, radius: float = 2.0, width: float = 0.1, half: float = 6.0) -> Target:
    """exp(-(|x| - r)^2 / 2 w^2) / sqrt(2 pi w^2) in the box [-6, 6]^d."""
    constant = -0.5 * math.log(2 * math.pi * width**2)

    def likelihood(_: SimpleNamespace) -> LogLikelihood:
        return lambda x: -0.5 * (((x**2).sum(-1) ** 0.5 - radius) / width) ** 2 + constant

    radial, _ = quad(
        lambda r: r ** (d - 1) * math.exp(-0.5 * ((r - radius) / width) ** 2 + constant),
        radius - 10 * width,
        radius + 10 * width,
        epsabs=0,
        epsrel=1e-12,
    )
    surface = math.log(2) + 0.5 * d * math.log(math.pi) - float(gammaln(0.5 * d))
    log_z = surface + math.log(radial) - d * math.log(2 * half)
    return Target(f"Gaussian shell in a box, d = {d}", d, half, True, likelihood, log_z)


def many_well(d: int, scale: float = 2.0) -> Target:
    """prod exp(-x^4 + 6 x^2 + x / 2 - y^2 / 2) over d / 2 pairs, from the reference N(0, 4 I): 2^(d/2) modes."""
    constant = 0.5 * d * math.log(2 * math.pi * scale**2)

    def likelihood(_: SimpleNamespace) -> LogLikelihood:
        def f(z: Any) -> Any:
            x, y = z[..., 0::2], z[..., 1::2]
            square = x**2
            well = (-(square**2) + 6 * square + 0.5 * x - 0.5 * y**2).sum(-1)
            return well + 0.5 * (z**2).sum(-1) / scale**2 + constant

        return f

    one, _ = quad(lambda x: math.exp(-(x**4) + 6 * x**2 + 0.5 * x), -6, 6, epsabs=0, epsrel=1e-12, limit=200)
    log_z = d // 2 * (math.log(one) + 0.5 * math.log(2 * math.pi))
    return Target(f"Many-Well, d = {d}", d, scale, False, likelihood, log_z)


def regression_data(d: int, rows: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """The design (rows, d - 1) and the data of `regression`."""
    rng, k = np.random.default_rng(20), d - 1
    place = np.arange(k)
    factor = np.linalg.cholesky(correlation ** np.abs(place[:, None] - place))
    x = rng.standard_normal((rows, k)) @ factor.T
    return x, x @ rng.standard_normal(k) + 0.7 * rng.standard_normal(rows)


def regression(d: int = 20, rows: int = 100, correlation: float = 0.9) -> Target:
    """y = X b + e, b ~ N(0, I) (d - 1), log sd of e ~ N(0, 1), columns of X correlated by 0.9^|i - j|.

    Given the noise, y is Gaussian; the noise is integrated out by quadrature.
    """
    x, y = regression_data(d, rows, correlation)
    constant = -0.5 * rows * math.log(2 * math.pi)

    def likelihood(xp: SimpleNamespace) -> LogLikelihood:
        design, data = xp.asarray(x.T.copy()), xp.asarray(y)

        def f(z: Any) -> Any:
            off, log_sd = data - z[..., :-1] @ design, z[..., -1]
            return constant - rows * log_sd - 0.5 * (off**2).sum(-1) * xp.exp(-2 * log_sd)

        return f

    values, vectors = np.linalg.eigh(x @ x.T)
    square = (vectors.T @ y) ** 2

    def log_integrand(log_sd: float) -> float:
        variance = np.maximum(values, 0) + math.exp(2 * log_sd)
        given = constant - 0.5 * float((np.log(variance) + square / variance).sum())
        return given - 0.5 * log_sd**2 - 0.5 * math.log(2 * math.pi)

    top = max(log_integrand(v) for v in np.linspace(-3, 3, 601))
    total, _ = quad(lambda v: math.exp(log_integrand(v) - top), -4, 4, epsabs=0, epsrel=1e-12, limit=400, points=[-0.4])
    log_z = top + math.log(total)
    return Target(f"Regression with unknown noise, d = {d}", d, 1.0, False, likelihood, log_z)


def mixture(components: int = 40, scale: float = 30.0) -> Target:
    """40 equal round Gaussians (sd 1.31) with centres uniform in [-40, 40]^2, from the reference N(0, 30^2 I)."""
    centres = np.random.default_rng(40).uniform(-40, 40, (components, 2))
    sd = math.log1p(math.e)
    constant = -math.log(2 * math.pi * sd**2) - math.log(components)
    reference = math.log(2 * math.pi * scale**2)

    def likelihood(xp: SimpleNamespace) -> LogLikelihood:
        at = xp.asarray(centres)

        def f(z: Any) -> Any:
            off = ((z[..., None, :] - at) ** 2).sum(-1)
            return xp.logsumexp(-0.5 * off / sd**2) + constant + 0.5 * (z**2).sum(-1) / scale**2 + reference

        return f

    return Target("Mixture of 40, d = 2", 2, scale, False, likelihood, 0.0)


TARGETS: dict[str, Callable[[], Target]] = {
    "mixture-2": mixture,
    "shell-5": lambda: shell(5),
    "many-well-8": lambda: many_well(8),
    "gaussian-10": lambda: gaussian(10),
    "regression-20": regression,
    "gaussian-30": lambda: gaussian(30),
    "gaussian-100": lambda: gaussian(100),
}


def check() -> None:
    """Means of the likelihood over a grid or over draws of the prior, beside the exact values."""
    centres = (np.arange(2000) + 0.5) / 2000
    target = mixture()
    u = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    found = logsumexp(target.likelihood(NUMPY)(target.from_cube(u))) - math.log(len(u))
    print(target.title, target.log_z, "by a grid", found)
    rng = np.random.default_rng(0)
    for target in (shell(2), shell(5), many_well(2), many_well(4), gaussian(1), regression(2, 8), regression(3, 6)):
        value = target.likelihood(NUMPY)(target.from_cube(rng.uniform(size=(2_000_000, target.dim))))
        weight = np.exp(value - value.max())
        found, se = float(value.max() + np.log(weight.mean())), weight.std() / weight.mean() / math.sqrt(len(weight))
        print(f"{target.title}: {target.log_z:.5f}, by draws {found:.5f} +- {se:.5f}")


if __name__ == "__main__":
    check()
