"""posteriordb's eight_schools_noncentered: Rubin (1981), Estimation in parallel randomized experiments, d = 10."""

from __future__ import annotations

from torch.distributions import HalfCauchy, Normal

from . import data
from .base import Named, Posterior, gathered, numbered, real

NAME = "eight_schools-eight_schools_noncentered"


def posterior() -> Posterior:
    """Effects theta = mu + tau theta_trans of coaching in eight schools; the prior of tau is a half-Cauchy."""
    d = data.posteriordb("eight_schools")
    y, sigma = real(d["y"]), real(d["sigma"])
    scaled, weight = y / sigma, 1 / sigma

    def theta(p: Named):
        return p["mu"][:, None] + p["tau"][:, None] * p["theta_trans"]

    def log_likelihood(p: Named):
        return -0.5 * (theta(p) * weight - scaled).square().sum(1)

    prior = {
        "theta_trans": Normal(real(0.0).expand(8), real(1.0)),
        "mu": Normal(real(0.0), real(5.0)),
        "tau": HalfCauchy(real(5.0)),
    }
    return Posterior(
        NAME,
        log_likelihood,
        prior,
        lambda p: {**numbered("theta", theta(p)), "mu": p["mu"], "tau": p["tau"]},
        lambda r: {
            "theta_trans": (gathered("theta", r) - r["mu"][:, None]) / r["tau"][:, None],
            "mu": r["mu"],
            "tau": r["tau"],
        },
    )
