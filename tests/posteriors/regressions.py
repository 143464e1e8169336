"""Gaussian regressions of posteriordb (arK, nes, diamonds) and a logistic one on measurements of tumours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import HalfCauchy, LogNormal, Normal, StudentT

from . import data
from .base import Named, Posterior, gathered, numbered, real, without


class Gaussian:
    """The log-likelihood of y ~ N(x coefficients, sigma^2), up to a constant.

    Args:
        x, y: (n, d) and (n,).
        rows: "all", or "reduced": by the factor R of [x, y] = QR, which has the same sums of squares in d + 1 rows.
    """

    def __init__(self, x: Tensor, y: Tensor, rows: str):
        if rows not in ("all", "reduced"):
            raise ValueError(f'rows must be "all" or "reduced", not {rows!r}')
        table = torch.cat([x, y[:, None]], 1)
        self.n = len(table)
        table = torch.linalg.qr(table).R if rows == "reduced" else table
        self.x, self.y = table[:, :-1].T.contiguous(), table[:, -1].contiguous()

    def __call__(self, coefficients: Tensor, sigma: Tensor) -> Tensor:
        off = torch.addmm(self.y, coefficients, self.x, beta=-1)
        return -0.5 * off.square().sum(1) / sigma.square() - self.n * sigma.log()


def autoregression(rows: str = "reduced") -> Posterior:
    """arK: an autoregression of order 5 on 200 simulated values, d = 7."""
    gaussian = Gaussian(*map(real, data.autoregression()), rows)

    def log_likelihood(p: Named):
        return gaussian(torch.cat([p["alpha"][:, None], p["beta"]], 1), p["sigma"])

    ten = real(10.0)
    prior = {"alpha": Normal(0 * ten, ten), "beta": Normal((0 * ten).expand(5), ten), "sigma": HalfCauchy(real(2.5))}
    return Posterior(
        "arK-arK",
        log_likelihood,
        prior,
        lambda p: {"alpha": p["alpha"], **numbered("beta", p["beta"]), "sigma": p["sigma"]},
        lambda r: {"alpha": r["alpha"], "beta": gathered("beta", r), "sigma": r["sigma"]},
    )


def nes(rows: str = "reduced") -> Posterior:
    """nes2000: party identification, d = 10; Stan's program has no priors, so beta and sigma > 0 are flat."""
    gaussian = Gaussian(*map(real, data.nes2000()), rows)
    prior = {
        "beta": Normal(real(0.0).expand(9), real(5.0)),
        "sigma": LogNormal(real(0.0), real(1.0)),
    }

    def log_likelihood(p: Named):
        flat = without(prior["beta"], p["beta"]) + without(prior["sigma"], p["sigma"])
        return flat + gaussian(p["beta"], p["sigma"])

    return Posterior(
        "nes2000-nes",
        log_likelihood,
        prior,
        lambda p: {**numbered("beta", p["beta"]), "sigma": p["sigma"]},
        lambda r: {"beta": gathered("beta", r), "sigma": r["sigma"]},
    )


def diamonds(rows: str = "reduced") -> Posterior:
    """diamonds: log prices on 24 strongly correlated columns, d = 26; the law of sigma is Student's with df 3, halved.

    Tempering starts sigma from a lognormal law, whose density does not underflow far out.
    """
    gaussian = Gaussian(*map(real, data.diamonds()), rows)
    three, ten = real(3.0), real(10.0)
    prior = {
        "b": Normal(real(0.0).expand(24), real(1.0)),
        "Intercept": StudentT(three, real(8.0), ten),
        "sigma": LogNormal(0 * three, real(2.0)),
    }
    student = StudentT(three, 0 * ten, ten, validate_args=False)

    def log_likelihood(p: Named):
        law = student.log_prob(p["sigma"]) + without(prior["sigma"], p["sigma"])
        return law + gaussian(torch.cat([p["b"], p["Intercept"][:, None]], 1), p["sigma"])

    return Posterior(
        "diamonds-diamonds",
        log_likelihood,
        prior,
        lambda p: {**numbered("b", p["b"]), "Intercept": p["Intercept"], "sigma": p["sigma"]},
        lambda r: {"b": gathered("b", r), "Intercept": r["Intercept"], "sigma": r["sigma"]},
    )


def breast_cancer() -> Posterior:
    """Logistic regression on the Wisconsin breast cancer data: N(0, 1) priors, N(0, 5^2) for the intercept, d = 31."""
    x, y = data.breast_cancer()
    signed = real(x * y[:, None]).T.contiguous()
    scale = torch.ones(31, dtype=torch.float64)
    scale[0] = 5.0

    def log_likelihood(p: Named):
        return torch.nn.functional.logsigmoid(p["beta"] @ signed).sum(1)

    return Posterior(
        "breast_cancer-logistic",
        log_likelihood,
        {"beta": Normal(0 * scale, scale)},
        lambda p: numbered("beta", p["beta"]),
        lambda r: {"beta": gathered("beta", r)},
    )
