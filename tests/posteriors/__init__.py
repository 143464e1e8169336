"""Posteriors with known answers: each function makes a log-likelihood and a prior, with the names used elsewhere.

`data` needs NumPy only, so that a peer that reads the same data does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Posterior

REFERENCED = {
    "eight_schools-eight_schools_noncentered": "eight_schools.posterior",
    "gp_pois_regr-gp_regr": "gaussian_process.posterior",
    "garch-garch11": "garch.posterior",
    "arK-arK": "regressions.autoregression",
    "hudson_lynx_hare-lotka_volterra": "lotka_volterra.posterior",
    "bball_drive_event_0-hmm_drive_0": "hidden_markov.posterior",
    "nes2000-nes": "regressions.nes",
    "diamonds-diamonds": "regressions.diamonds",
}
"""Those of posteriordb, with reference draws."""

MORE = {
    "breast_cancer-logistic": "regressions.breast_cancer",
    "simulated-item_response": "item_response.posterior",
    "simulated-stochastic_volatility": "stochastic_volatility.posterior",
}
"""Those without."""


def posterior(name: str, **knobs: str) -> Posterior:
    """The posterior `name`; the Gaussian regressions take `rows`, "all" or "reduced"."""
    module, function = {**REFERENCED, **MORE}[name].split(".")
    return getattr(import_module(f".{module}", __name__), function)(**knobs)
