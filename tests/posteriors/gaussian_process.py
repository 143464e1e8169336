"""posteriordb's gp_regr on gp_pois_regr: a Gaussian process with Gaussian noise on eleven points, d = 3."""

from __future__ import annotations

import math

import torch
from torch.distributions import Gamma, HalfNormal

from . import data
from .base import Named, Posterior, real

NAME = "gp_pois_regr-gp_regr"


def posterior() -> Posterior:
    """Length scale rho and size alpha of a squared-exponential kernel; sigma is the variance of the noise."""
    d = data.posteriordb("gp_pois_regr")
    x, y = real(d["x"]), real(d["y"])
    distance, eye = (x[:, None] - x).square(), torch.eye(len(x), dtype=torch.float64)

    def log_likelihood(p: Named):
        rho, alpha, sigma = (p[k][:, None, None] for k in ("rho", "alpha", "sigma"))
        covariance = alpha.square() * torch.exp(-0.5 * distance / rho.square()) + sigma * eye
        factor, failed = torch.linalg.cholesky_ex(covariance)
        white = torch.linalg.solve_triangular(factor, y[:, None].expand(len(rho), -1, 1), upper=False)
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return torch.where(failed == 0, -0.5 * white.square().sum((1, 2)) - log_det, -math.inf)

    prior = {"rho": Gamma(real(25.0), real(4.0)), "alpha": HalfNormal(real(2.0)), "sigma": HalfNormal(real(1.0))}
    return Posterior(NAME, log_likelihood, prior, dict, dict)
