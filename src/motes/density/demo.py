"""The posterior of the demonstration: logistic regression on real data."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from motes.density.annealing.tempering import Tempering
from motes.laws.density import Density

TITLE, PARTICLES, NEEDS = "Posterior: logistic regression", 1024, ()
"""What `motes demo` calls it, how many particles, what must be installed."""


def model() -> Tempering:
    """The model of the demonstration."""
    return logistic_regression()


def breast_cancer() -> tuple[Tensor, Tensor, list[str]]:
    """569 tumours: standardised measurements (569, 30), benign (569,) 0 or 1, and the measurements' names."""
    path = files("motes.density") / "data" / "breast_cancer.csv"
    names = path.read_text().splitlines()[0].split(",")[:-1]
    with path.open() as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", skiprows=1))
    x, y = table[:, :-1], table[:, -1]
    return (x - x.mean(0)) / x.std(0, correction=0), y, names


def logistic_regression() -> Tempering:
    """Which tumours are benign: Bayesian logistic regression with standard normal priors, d = 31.

    The parameters are "intercept" (N,), with prior N(0, 5^2), and "slope" (N, 30), on standardised measurements.
    """
    x, y, _ = breast_cancer()
    signed = ((2 * y - 1)[:, None] * torch.cat([torch.ones(len(x), 1).to(x), x], 1)).T.contiguous()

    def log_likelihood(p: dict[str, Tensor]) -> Tensor:
        z = torch.cat([p["intercept"][:, None], p["slope"]], 1)
        return torch.nn.functional.logsigmoid(z @ signed).sum(1)

    zero = torch.zeros((), dtype=torch.float64)
    prior = {"intercept": Normal(zero, 5.0), "slope": Normal(zero.expand(30), 1.0)}
    return Tempering(Density(log_likelihood, prior, vectorised=True))
