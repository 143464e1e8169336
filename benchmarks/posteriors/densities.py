"""The log-densities of tests/posteriors in JAX, for one real vector: same coordinates, same law, up to a constant.

`python -m benchmarks.posteriors.agree` compares values and gradients. The Gaussian regressions take all rows of data
(`rows="all"` there); recursions are written in the same way as there.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_sigmoid
from tests.posteriors import data

LogDensity = Callable[[Array], Array]


# ------------------------------------------------------------------------------------------------ coordinates


def simplex(z: Array) -> tuple[Array, Array]:
    """A point of the simplex by breaking a stick, and the log-determinant of the map."""
    x = z - jnp.log(jnp.arange(len(z), 0, -1))
    left = jnp.cumsum(log_sigmoid(-x))
    log_y = log_sigmoid(x) + jnp.concatenate([jnp.zeros(1), left[:-1]])
    y = jnp.concatenate([jnp.exp(log_y), jnp.exp(left[-1:])])
    return y, jnp.sum(log_sigmoid(-x) + log_y)


def normal(x: Array, location: object = 0.0, scale: object = 1.0) -> Array:
    return -0.5 * jnp.sum(jnp.square((x - location) / scale))


def cauchy(x: Array, scale: float) -> Array:
    return -jnp.sum(jnp.log1p(jnp.square(x / scale)))


def gaussian(x: np.ndarray, y: np.ndarray) -> Callable[[Array, Array], Array]:
    """Log-likelihood of y ~ N(x coefficients, exp(2 log_sigma))."""

    def log_likelihood(coefficients: Array, log_sigma: Array) -> Array:
        return -0.5 * jnp.sum(jnp.square(x @ coefficients - y)) * jnp.exp(-2 * log_sigma) - len(y) * log_sigma

    return log_likelihood


def recurse(first: Array, rate: Array) -> Array:
    """s_t = first_t + rate s_{t-1}, by doubling the reach of each sum."""
    s, power, reach = first, rate, 1
    while reach < len(s):
        s = jnp.concatenate([s[:reach], s[reach:] + power * s[:-reach]])
        power, reach = power * power, 2 * reach
    return s


# ------------------------------------------------------------------------------------------------ posteriordb


def eight_schools() -> tuple[LogDensity, int]:
    d = data.posteriordb("eight_schools")

    def log_density(z: Array) -> Array:
        raw, mu, tau = z[:8], z[8], jnp.exp(z[9])
        return normal(d["y"], mu + tau * raw, d["sigma"]) + normal(raw) + normal(mu, 0, 5) + cauchy(tau, 5) + z[9]

    return log_density, 10


def gaussian_process() -> tuple[LogDensity, int]:
    d = data.posteriordb("gp_pois_regr")
    distance, eye = np.square(d["x"][:, None] - d["x"]), np.eye(len(d["x"]))

    def log_density(z: Array) -> Array:
        rho, alpha, sigma = jnp.exp(z)
        factor = jnp.linalg.cholesky(alpha**2 * jnp.exp(-0.5 * distance / rho**2) + sigma * eye)
        white = jax.scipy.linalg.solve_triangular(factor, d["y"], lower=True)
        prior = 24 * z[0] - 4 * rho + normal(alpha, 0, 2) + normal(sigma)
        return prior + normal(white) - jnp.sum(jnp.log(jnp.diag(factor))) + jnp.sum(z)

    return log_density, 3


def garch() -> tuple[LogDensity, int]:
    d = data.posteriordb("garch")
    y, first = d["y"], np.square(d["sigma1"])

    def log_density(z: Array) -> Array:
        alpha0, (weights, jacobian) = jnp.exp(z[1]), simplex(z[2:])
        off = jnp.square(y - z[0])
        steps = jnp.concatenate([first[None], alpha0 + weights[0] * off[:-1]])
        variance = recurse(steps, weights[1])
        return z[1] + jacobian - 0.5 * jnp.sum(off / variance + jnp.log(variance))

    return log_density, 4


def autoregression() -> tuple[LogDensity, int]:
    likelihood = gaussian(*data.autoregression())

    def log_density(z: Array) -> Array:
        return likelihood(z[:6], z[6]) + normal(z[:6], 0, 10) + cauchy(jnp.exp(z[6]), 2.5) + z[6]

    return log_density, 7


# Blanes & Moan (2002), table 2, order 4, two steps a year: see tests/posteriors/lotka_volterra.py
A = (0.0792036964311957, 0.353172906049774, -0.0420650803577195)
A = (*A, 1 - 2 * sum(A), *A[::-1])
B = (0.209515106613362, -0.143851773179818)
B = (*B, 0.5 - sum(B))
B = (*B, *B[::-1], 0.0)
STEPS = 2


def lotka_volterra() -> tuple[LogDensity, int]:
    d = data.posteriordb("hudson_lynx_hare")
    table = np.log(np.concatenate([d["y_init"][None], d["y"]]))
    centre, scale = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])

    def log_density(z: Array) -> Array:
        theta, sigma = jnp.exp(z[:4]), jnp.exp(z[6:])
        alpha, beta, gamma, delta = theta / STEPS

        def year(state: Array, _: None) -> tuple[Array, Array]:
            x, y = state
            for _step in range(STEPS):
                for a, b in zip(A, B, strict=True):
                    x = x + a * (alpha - beta * jnp.exp(y))
                    if b:
                        y = y + b * (delta * jnp.exp(x) - gamma)
            state = jnp.stack([x, y])
            return state, state

        _, path = jax.lax.scan(year, z[4:6], None, len(table) - 1)
        path = jnp.concatenate([z[4:6][None], path])
        prior = normal(theta, centre, scale) + normal(z[4:6], np.log(10.0)) + normal(z[6:], -1.0)
        return prior + jnp.sum(z[:4]) + normal(table, path, sigma) - len(table) * jnp.sum(z[6:])

    return log_density, 8


def product(m: Array) -> tuple[Array, Array]:
    """The product of matrices (T, 2, 2) by multiplying neighbours, and the log of what it was divided by."""
    log_scale = jnp.zeros(())
    while len(m) > 1:
        if len(m) % 2:
            m = jnp.concatenate([m, jnp.eye(2)[None]])
        a, b = m[0::2], m[1::2]
        m = a[:, :, :1] * b[:, :1] + a[:, :, 1:] * b[:, 1:]
        scale = jax.lax.stop_gradient(jnp.max(m, (1, 2)))
        m, log_scale = m / scale[:, None, None], log_scale + jnp.sum(jnp.log(scale))
    return m[0], log_scale


def hidden_markov() -> tuple[LogDensity, int]:
    d = data.posteriordb("bball_drive_event_0")
    u, v, alpha = d["u"][:, None], d["v"][:, None], d["alpha"]

    def log_density(z: Array) -> Array:
        (theta1, j1), (theta2, j2) = simplex(z[:1]), simplex(z[1:2])
        theta = jnp.stack([theta1, theta2])
        phi, rate = jnp.cumsum(jnp.exp(z[2:4])), jnp.cumsum(jnp.exp(z[4:6]))
        emission = jnp.log(phi * rate) - phi * u - rate * v
        most = jax.lax.stop_gradient(jnp.max(emission, 1))
        emission = jnp.exp(emission - most[:, None])
        first = jnp.stack([emission[:1], jnp.zeros_like(emission[:1])], 1)
        total, log_scale = product(jnp.concatenate([first, theta * emission[1:, None]]))
        prior = jnp.sum((alpha - 1) * jnp.log(theta)) + normal(phi, np.array([0, 3])) + normal(rate, np.array([0, 3]))
        return prior + j1 + j2 + jnp.sum(z[2:]) + jnp.log(jnp.sum(total[0])) + log_scale + jnp.sum(most)

    return log_density, 6


def nes() -> tuple[LogDensity, int]:
    likelihood = gaussian(*data.nes2000())
    return lambda z: likelihood(z[:9], z[9]) + z[9], 10


def diamonds() -> tuple[LogDensity, int]:
    likelihood = gaussian(*data.diamonds())

    def student(x: Array, location: float) -> Array:
        return -2 * jnp.log1p(jnp.square((x - location) / 10) / 3)

    def log_density(z: Array) -> Array:
        return likelihood(z[:25], z[25]) + normal(z[:24]) + student(z[24], 8) + student(jnp.exp(z[25]), 0) + z[25]

    return log_density, 26


# ------------------------------------------------------------------------------------------------ more


def breast_cancer() -> tuple[LogDensity, int]:
    x, y = data.breast_cancer()
    signed, scale = x * y[:, None], np.array([5.0] + [1.0] * 30)
    return lambda z: jnp.sum(log_sigmoid(signed @ z)) + normal(z, 0, scale), 31


def item_response() -> tuple[LogDensity, int]:
    answers = data.item_response()
    n, k = answers.shape

    def log_density(z: Array) -> Array:
        ability, log_slope, raw, level, spread = *jnp.split(z[:-2], [n, n + k]), z[-2], jnp.exp(z[-1])
        off = ability[:, None] - (level + spread * raw)
        prior = normal(ability) + normal(log_slope, 0, 0.5) + normal(raw) + normal(level, 0, 2) + normal(spread, 0, 2)
        return jnp.sum(log_sigmoid(answers * jnp.exp(log_slope) * off)) + prior + z[-1]

    return log_density, n + 2 * k + 2


def stochastic_volatility() -> tuple[LogDensity, int]:
    square = np.square(data.returns())

    def log_density(z: Array) -> Array:
        mu, sigma, shock = z[0], jnp.exp(z[2]), z[3:]
        phi = 2 * jax.nn.sigmoid(z[1]) - 1
        first = sigma * shock[:1] / jnp.sqrt(1 - phi**2)
        h = mu + recurse(jnp.concatenate([first, sigma * shock[1:]]), phi)
        jacobian = log_sigmoid(z[1]) + log_sigmoid(-z[1]) + z[2]
        return cauchy(mu, 10) + cauchy(sigma, 5) + normal(shock) + jacobian - 0.5 * jnp.sum(h + square * jnp.exp(-h))

    return log_density, len(square) + 3


DENSITIES: dict[str, Callable[[], tuple[LogDensity, int]]] = {
    "eight_schools-eight_schools_noncentered": eight_schools,
    "gp_pois_regr-gp_regr": gaussian_process,
    "garch-garch11": garch,
    "arK-arK": autoregression,
    "hudson_lynx_hare-lotka_volterra": lotka_volterra,
    "bball_drive_event_0-hmm_drive_0": hidden_markov,
    "nes2000-nes": nes,
    "diamonds-diamonds": diamonds,
    "breast_cancer-logistic": breast_cancer,
    "simulated-item_response": item_response,
    "simulated-stochastic_volatility": stochastic_volatility,
}
