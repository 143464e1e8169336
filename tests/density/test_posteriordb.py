"""Eight posteriors of posteriordb: the densities are Stan's exactly, and a run agrees with the reference draws.

The log-density is held to the reference draws by Stein's identities, which need no sampler: with w the draws made white
and g the gradient of the log-density in w, E g = 0 and E g w^T = -I under the law that the gradient belongs to.
"""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm, t
from torch import Tensor

import motes
from posteriors import REFERENCED, data, posterior
from posteriors.base import Named, Posterior

ALPHA = 1e-6
"""Two-sided level of a test, all its comparisons together."""
BLOCKS = 100
"""Blocks of reference draws whose means give a standard error: 10 in each of 10 chains."""

pytestmark = pytest.mark.skipif(
    data.folder() is None, reason=f"set {data.VARIABLE} to a folder with posteriordb's data and reference draws"
)


def reference(p: Posterior) -> Named:
    """The draws (10,000,) of each parameter, chain after chain."""
    return {k: torch.as_tensor(v.reshape(-1)) for k, v in data.reference(p.name).items()}


def blocked(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the draws, the first axis, and its standard error."""
    means = x.reshape(BLOCKS, -1, *x.shape[1:]).mean(1)
    return means.mean(0), means.std(0) / BLOCKS**0.5


def stein(density: motes.Density, z: Tensor, gradient: Tensor) -> tuple[float, float]:
    """The largest of the z-scores of Stein's identities, and the limit that it stays below at level ALPHA."""
    centre, factor = z.mean(0), torch.linalg.cholesky(z.T.cov())
    white = torch.linalg.solve_triangular(factor, (z - centre).T, upper=False).T
    g = gradient @ factor
    identities = torch.cat([g[:, None], g[:, :, None] * white[:, None] + torch.eye(density.dim)], 1)
    mean, se = blocked(identities)
    limit = t.ppf(1 - ALPHA / (2 * mean.numel()), BLOCKS - 1)
    return float((mean / se).abs().max()), float(limit)


def score(density: motes.Density, z: Tensor) -> Tensor:
    state = density.evaluate(z, True)
    return state["likelihood_gradient"] + state["prior_gradient"]


@pytest.mark.parametrize("name", REFERENCED)
def test_the_log_density_is_that_of_the_reference_draws(name):
    """Catches a curvature wrong by 10 % in any direction, or a mean off by 0.1 posterior standard deviations."""
    p = posterior(name)
    density, draws = p.density(), reference(p)
    z = density.unconstrain(p.inward(draws))
    back = p.outward(density.constrain(z))
    assert back.keys() == draws.keys()
    assert all(torch.allclose(back[k], draws[k], rtol=1e-9, atol=1e-9) for k in draws)
    found, limit = stein(density, z, score(density, z))
    assert found < limit
    found, limit = stein(density, z, score(p.density(power=0.9), z))
    assert found > limit  # the broken twin


@pytest.mark.parametrize("name", [n for n in REFERENCED if n.split("-")[1] not in ("arK", "nes", "diamonds")])
def test_a_density_without_its_jacobian_is_not(name):
    """Where there are hundreds of data, 10,000 draws cannot tell: it moves log sigma by 1 / (2 n)."""
    p = posterior(name)
    density = p.density()
    z = density.unconstrain(p.inward(reference(p))).requires_grad_()
    (jacobian,) = torch.autograd.grad(density.parameters.constrain(z)[1].sum(), z)
    z = z.detach()
    found, limit = stein(density, z, score(density, z) - jacobian)
    assert found > limit


# ------------------------------------------------------------------------------------------------ runs

PARTICLES = {
    "eight_schools-eight_schools_noncentered": 4096,
    "gp_pois_regr-gp_regr": 4096,
    "garch-garch11": 1024,
    "arK-arK": 2048,
    "hudson_lynx_hare-lotka_volterra": 512,
    "bball_drive_event_0-hmm_drive_0": 512,
    "nes2000-nes": 2048,
    "diamonds-diamonds": 512,
}


LONG = ("diamonds", "hmm_drive_0", "lotka_volterra", "garch11")
"""Models whose runs take half a minute and more."""


def furthest(p: Posterior, n: int, **knobs: float) -> tuple[float, float, float]:
    """How far a run's first and second moments are from the reference's.

    Moments are those of each reference parameter, centred and scaled by the reference draws.

    Returns:
        The largest z-score, the limit that it stays below at level ALPHA, and the largest joint standard error.
    """
    run = motes.sample(motes.Tempering(p.density(**knobs)), n, seed=1, progress=False)
    draws = reference(p)
    table = torch.stack([*draws.values()], 1)

    def moments(values: Named) -> Tensor:
        x = (torch.stack([values[k] for k in draws], 1) - table.mean(0)) / table.std(0)
        return torch.cat([x, x.square()], 1)

    found = run.mean(lambda v: moments(p.outward(v)))
    assert not found.reason
    truth, truth_se = blocked(moments(draws))
    se = (found.se.square() + truth_se.square()).sqrt()
    limit = norm.ppf(1 - ALPHA / (2 * len(se)))
    return float(((found.value - truth) / se).abs().max()), float(limit), float(se.max())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.split("-")[1] in LONG else n for n in REFERENCED]
)
def test_a_run_agrees_with_the_reference_draws(name):
    """Catches a mean or a second moment off by one posterior standard deviation; most of the runs half of that."""
    found, limit, se = furthest(posterior(name), PARTICLES[name])
    assert found < limit
    assert limit * se < 1


@pytest.mark.parametrize("name", ["gp_pois_regr-gp_regr", "arK-arK", "nes2000-nes"])
def test_a_run_of_another_law_does_not(name):
    """The broken twin: the square root of the likelihood."""
    found, limit, _ = furthest(posterior(name), PARTICLES[name], power=0.5)
    assert found > limit
