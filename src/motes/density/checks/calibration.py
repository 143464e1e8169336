"""Simulation-based calibration: whether posteriors of simulated data are neither too narrow, nor too wide, nor off."""

from __future__ import annotations

import math

import numpy as np
import torch

from motes.core import tree
from motes.core.drive import uninterrupted
from motes.core.estimate.ranks import farthest
from motes.core.resampling import find_scheme
from motes.core.sample import sample
from motes.density.annealing.tempering import Tempering
from motes.density.checks.finding import FAILED, OK, Finding, coordinates
from motes.density.checks.setting import Setting, watched
from motes.rng import Rng

DRAWS = 63
"""Draws of each posterior among which the truth is ranked: 64 possible ranks."""
PARTICLES = 256
CESS = 0.5
"""What a change of temperature leaves of the effective sample size; the evidence would want more."""
ALPHA = 1e-3
"""Chance of a false alarm, over all quantities together."""
TRIALS = 4000
"""Simulations of uniform ranks that calibrate the band."""


def calibration(setting: Setting, rng: Rng, replicates: int = 100, progress: bool = False) -> Finding:
    """Ranks of the true parameters, and of their log-likelihood, among posterior draws given data simulated there.

    They are uniform if prior, simulator, likelihood and sampler belong together. The empirical distribution function of
    the ranks is held to a simultaneous band: the narrowest pointwise binomial one that uniform ranks leave anywhere
    with the given probability, found by simulation.

    References:
        Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with
        simulation-based calibration, arXiv:1804.06788.
        Säilynoja, Bürkner & Vehtari (2022), Graphical test for discrete uniformity and its applications in
        goodness-of-fit evaluation and multiple sample comparison, Statistics and Computing 32.
        Modrák et al. (2023), Simulation-based calibration checking for Bayesian computation: the choice of test
        quantities shapes sensitivity, Bayesian Analysis (the log-likelihood as a quantity).
    """
    truth, data = setting.drawn(rng, replicates)
    names = [*coordinates(setting.first()), "the log-likelihood"]
    ranks = np.zeros((replicates, len(names)), dtype=np.int64)
    for i, observed in enumerate(watched(data, "calibration", progress)):
        density = setting.density(observed)
        seed = int(rng.at(f"seed-{i}").integers((), 1 << 31))
        # the time for a second attempt at one posterior is better spent on more of them: ranks show where it was needed
        model = Tempering(density, conditional_ess=CESS, careful=False)
        run = uninterrupted(sample(model, PARTICLES, seed=seed, progress=False))
        # systematically, so that particles of equal weight come once at most, and in an order of no meaning
        index = find_scheme("systematic")(rng.at(f"choice-{i}"), run.log_weight, n=DRAWS)
        pick = tree.take(run.particles.x, index)
        here = density.evaluate(truth[i : i + 1])
        draws = torch.cat([pick["position"].double(), pick["log_likelihood"][:, None]], 1)
        own = torch.cat([truth[i].double(), here["log_likelihood"]])
        tie = rng.at(f"tie-{i}").uniform((DRAWS + 1, len(names)))
        below = (draws < own) | ((draws == own) & (tie[1:] < tie[0]))
        ranks[i] = below.sum(0).numpy()
    limit = band(replicates, max(ALPHA / len(names), 2 / TRIALS), rng)
    worst, at = _outside(ranks, limit)
    numbers = {
        "replicates": replicates,
        "possible": DRAWS + 1,
        "band": limit,
        "ranks": {n: ranks[:, k].tolist() for k, n in enumerate(names)},
    }
    if worst < 1:
        said = f"ranks of {len(names)} quantities in {replicates} simulated data sets are uniform"
        return Finding("calibration", OK, said, numbers)
    said = (
        f"posteriors of simulated data are {_shape(ranks[:, at])} for {names[at]}: prior, simulate and log-likelihood "
    )
    said += "do not belong together (a scale, an index, a missing term), or the sampler has trouble there"
    return Finding("calibration", FAILED, said, {"parameter": names[at], **numbers})


def band(replicates: int, alpha: float, rng: Rng) -> float:
    """How many standard deviations the distribution function of uniform ranks leaves anywhere with chance `alpha`."""
    rank = rng.at("band").integers((TRIALS, replicates), DRAWS + 1).numpy()
    return float(np.quantile([farthest(r, DRAWS) for r in rank], 1 - alpha))


def _outside(ranks: np.ndarray, limit: float) -> tuple[float, int]:
    """The largest distance in units of the band's width `limit`, and the quantity that it belongs to."""
    quantities = ranks.shape[1]
    distance = [farthest(ranks[:, k], DRAWS) / limit for k in range(quantities)]
    own = int(np.argmax(distance[:-1]))  # a parameter says more than the log-likelihood, which comes last
    return (distance[own], own) if distance[own] >= 1 else (distance[-1], quantities - 1)


def _shape(rank: np.ndarray) -> str:
    """What is wrong with ranks that are not uniform, in words."""
    u = (rank + 0.5) / (DRAWS + 1)
    shift = (u.mean() - 0.5) * math.sqrt(12 * len(u))
    spread = (np.square(u - 0.5).mean() - 1 / 12) * math.sqrt(180 * len(u))
    if abs(shift) > abs(spread):
        return "too low (the truth lies above them too often)" if shift > 0 else "too high (the truth lies below them)"
    return (
        "too narrow (the truth lies outside too often)" if spread > 0 else "too wide (the truth lies in their middle)"
    )
