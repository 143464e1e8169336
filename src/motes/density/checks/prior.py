"""Whether the draws from the prior have the prior's density."""

from __future__ import annotations

from statistics import NormalDist

import torch

from motes.density.checks.finding import FAILED, OK, SKIPPED, Finding, coordinates
from motes.laws.law import Law
from motes.rng import Rng

DRAWS = 4000
ALPHA = 1e-3
"""Chance of a false alarm, over all coordinates together."""


def prior(density: Law, rng: Rng) -> Finding:
    """Stein's identities for the score s of the prior's density of z at draws from it: E s_k = 0 and E z_k s_k = -1.

    They hold if the draws have that density, Jacobians of the maps to the real line included. 2 dim z-tests at a
    family-wise level of 1e-3 (Bonferroni); with 4000 draws a shift of a tenth of a standard deviation is caught.
    """
    if not density.differentiable or density.levels is not None:
        return Finding("prior", SKIPPED, "this check needs gradients of the prior's density")
    z = density.sample(rng.at("draws"), DRAWS)
    state = density.evaluate(z, gradient=True)
    kept = state["log_likelihood"] > -torch.inf  # gradients are zero where the density is
    if not kept.all():
        return Finding("prior", SKIPPED, "the likelihood is zero at draws from the prior, where no gradients are kept")
    names, score, z = coordinates(density), state["prior_gradient"].double(), z.double()
    z = z - z.median(0).values  # E s = 0 lets any constant in
    limit = NormalDist().inv_cdf(1 - ALPHA / (4 * density.dim))
    for values, what in ((score, "centre"), (z * score + 1, "scale")):
        error = values.std(0).clamp_min(1e-12) / DRAWS**0.5
        away = values.mean(0) / error
        k = int(away.abs().argmax())
        if not float(away[k].abs()) < limit:
            return Finding(
                "prior", FAILED, f"the draws of {names[k]} from the prior have another {what} than its density says "
                f"({float(away[k]):.1f} standard errors off): look at sample and log_prob of that prior, and at the "
                "Jacobian if you wrote the law yourself", {"parameter": names[k], "z": float(away[k])},
            )  # fmt: skip
    return Finding("prior", OK, f"{DRAWS} draws fit the prior's density in every coordinate, Jacobians included")
