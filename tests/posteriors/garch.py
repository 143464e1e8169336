"""posteriordb's garch11 on garch: conditional variances of 200 simulated values, d = 4.

Stan's program has no priors: mu and alpha0 > 0 are flat, (alpha1, beta1) uniform on the triangle alpha1 + beta1 < 1.
"""

from __future__ import annotations

import torch
from torch.distributions import Dirichlet, LogNormal, Normal

from . import data
from .base import Named, Posterior, real, without
from .recursion import recurse

NAME = "garch-garch11"


def posterior() -> Posterior:
    """Bollerslev (1986): variance_t = alpha0 + alpha1 (y_{t-1} - mu)^2 + beta1 variance_{t-1}.

    "weights" (N, 3) is alpha1, beta1 and what they leave of one, with the uniform law.
    """
    d = data.posteriordb("garch")
    y, first = real(d["y"]), float(d["sigma1"]) ** 2
    prior = {
        "mu": Normal(real(0.0), real(10.0)),
        "alpha0": LogNormal(real(0.0), real(2.0)),
        "weights": Dirichlet(torch.ones(3, dtype=torch.float64)),
    }

    def log_likelihood(p: Named):
        off = (y - p["mu"][:, None]).square()
        steps = torch.addcmul(p["alpha0"][:, None], p["weights"][:, :1], off[:, :-1])
        start = torch.full_like(steps[:, :1], first)
        variance = recurse(torch.cat([start, steps], 1), p["weights"][:, 1])
        flat = without(prior["mu"], p["mu"]) + without(prior["alpha0"], p["alpha0"])
        return flat - 0.5 * (off / variance + variance.log()).sum(1)

    return Posterior(
        NAME,
        log_likelihood,
        prior,
        lambda p: {
            "mu": p["mu"],
            "alpha0": p["alpha0"],
            "alpha1": p["weights"][:, 0],
            "beta1": p["weights"][:, 1],
        },
        lambda r: {
            "mu": r["mu"],
            "alpha0": r["alpha0"],
            "weights": torch.stack([r["alpha1"], r["beta1"], 1 - r["alpha1"] - r["beta1"]], 1),
        },
    )
