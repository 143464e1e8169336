"""Bridge sampling: the evidence from draws of a posterior, however they were made."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.batch_means import chain_mean
from motes.core.estimate.estimate import Estimate
from motes.core.estimate.variance import mean_se
from motes.core.run import Run
from motes.core.weights import normalise
from motes.errors import MotesError, ShapeError
from motes.laws.law import Law
from motes.rng import Rng

ITERATIONS = 1000


def bridge_sampling(
    run: Run, density: Law, *, symmetric: bool = True, proposals: int | None = None, seed: int = 0
) -> Estimate[Tensor]:
    """The log evidence of `density` from a run whose draws, weighted or chains, are from its posterior; nats.

    With draws of the posterior p = p*/Z and of a Gaussian q fitted to it, Z solves the optimal bridge

        Z = mean_q[ p* / (s1 p* + s2 Z q) ] / mean_p[ q / (s1 p* + s2 Z q) ],   s1 = n1 / (n1 + n2), s2 = 1 - s1,

    with n1 the effective number of posterior draws. Both means are of bounded functions, so q needs no heavy tails.
    With `symmetric` (warp-III) p* is averaged with its reflection about the mean of q, which takes out skewness and
    costs a second evaluation. It is a second opinion on what a `Tempering` run says, and for chains the only one.

    The draws are cut in two halves (families, chains, or the two halves of one chain): q is fitted to one and used with
    the other, both ways, and the two log evidences are averaged; fitting and bridging with the same draws would bias.
    What remains is the bias of a logarithm of a ratio, minus half the variance or less. The standard error is that of
    both means to first order, by the run's own rule for the posterior draws, and allows the two halves to err together:
    where q is nearly the posterior, an error is a product of what both halves have wrong.

    References:
        Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6,
        eq. 4.1.
        Meng & Schilling (2002), Warp bridge sampling, JCGS 11(3).
        Fruehwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and Markov switching models using
        bridge sampling techniques, Econometrics Journal 7(1), eq. 18.
        Overstall & Forster (2010), Default Bayesian model determination methods for generalised linear mixed models,
        CSDA 54(12), on fitting q to other draws.

    Args:
        run: it has draws of the posterior of `density` as its view.
        density: the law that the run sampled; it is evaluated at the draws.
        proposals: draws from each of the two q; None is as many as there are posterior draws in a half.
        seed: of the draws from q.

    Raises:
        MotesError: the run has too few draws, or the law lives on whole numbers.
        ShapeError: the draws are not points of `density`.

    >>> import torch, motes
    >>> from motes.density.estimates.bridge import bridge_sampling
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * (x / 0.5).square().sum(-1), normal)
    >>> run = motes.sample(motes.Chains(density, draws=50), 64, seed=0, progress=False)
    >>> abs(float(bridge_sampling(run, density)) - math.log(1 / 5)) < 0.05
    True
    """
    run = run.alone("bridge_sampling")
    if density.levels is not None:
        raise MotesError("bridge sampling fits a Gaussian, and this law lives on whole numbers: use tempering")
    z = density.unconstrain(run.flat).to(torch.float64)
    if z.shape[1] != density.dim:
        raise ShapeError(f"the run's draws have {z.shape[1]} numbers and the density has {density.dim}")
    first = _half(run, len(z))
    weight = run.weight if run.shown.weighted else torch.ones(len(z), dtype=torch.float64)
    found, reason = [], ""
    for k, fit in enumerate((first, ~first)):
        if int((fit & (weight > 0)).sum()) < 2 or int((~fit & (weight > 0)).sum()) < 2:
            raise MotesError("bridge sampling needs at least two draws in each half: run more particles or longer")
        *numbers, no = _bridge(run, density, z, weight, fit, symmetric, proposals, Rng(seed).at(f"bridge-{k}"))
        found.append(numbers)
        reason = reason or (no and f"of the draws in one half there is none ({no})")
    value, ours, theirs = torch.tensor(found, dtype=torch.float64).T
    # what the two halves' own draws add may be the same for both: it is a product of both halves' deviations
    variance = (ours.sqrt().sum().square() + theirs.sum()) / 4
    estimate = Estimate(value.mean(), variance.sqrt(), reason, method="spread of both densities' draws")
    return estimate.doubted(run.weighted_sample.doubt)


def _half(run: Run, rows: int) -> Tensor:
    """(rows,) bool: every second family of particles, every second chain, or of one chain the first half."""
    if run.shown.weighted:
        return run.genealogy.anchors[0].slot.long() % 2 == 0
    draws = rows // run.n
    if run.n >= 2:
        return torch.arange(run.n).repeat_interleave(draws) % 2 == 0
    return torch.arange(draws) < draws // 2


def _bridge(
    run: Run, density: Law, z: Tensor, weight: Tensor, fit: Tensor, symmetric: bool, proposals: int | None, rng: Rng
) -> tuple[float, float, float, str]:
    """Log evidence with q fitted to the draws `fit` and bridged to the others, its variance and why there is none.

    The variance is in two parts, from the draws of the posterior and from those of q.
    """
    centre, root = _gaussian(z[fit], normalise(weight[fit].log()))
    volume = float(root.diagonal().log().sum())
    constant = -0.5 * math.log(2 * math.pi) * density.dim

    def log_ratio(eta: Tensor) -> Tensor:
        """log p*(eta) - log q(eta) in the standardised coordinates."""
        value = _log_density(density, centre + eta @ root.T)
        if symmetric:
            value = torch.logaddexp(value, _log_density(density, centre - eta @ root.T)) - math.log(2)
        return value + volume - constant + 0.5 * eta.square().sum(1)

    other = ~fit & (weight > 0)
    l1 = torch.zeros_like(weight)
    l1[other] = log_ratio(torch.linalg.solve_triangular(root, (z[other] - centre).T, upper=False).T)
    w = torch.where(other, weight, 0.0)
    w = w / w.sum()
    n2 = proposals or int(other.sum())
    l2 = log_ratio(rng.normal((n2, density.dim)))
    n1, rows = float(other.sum()), w > 0
    spread = float(w @ (l1 - w @ l1).square())
    variance, reason = _variance(run, l1, other)
    if not reason and variance > 0:
        n1 = min(n1, max(1.0, spread / variance))
    log_s1, log_s2 = math.log(n1 / (n1 + n2)), math.log(n2 / (n1 + n2))
    log_w = w.log()

    def parts(log_z: float) -> tuple[Tensor, Tensor]:
        at = torch.tensor(log_s2 + log_z, dtype=torch.float64)
        return l2 - torch.logaddexp(log_s1 + l2, at), torch.where(rows, -torch.logaddexp(log_s1 + l1, at), 0.0)

    log_z = float(l1[rows].median())
    for _ in range(ITERATIONS):
        above, below = parts(log_z)
        new = float(torch.logsumexp(above, 0)) - math.log(n2) - float(torch.logsumexp(below + log_w, 0))
        if not math.isfinite(new):
            raise MotesError("no draw of the fitted Gaussian falls where the posterior is positive")
        log_z, moved = new, abs(new - log_z)
        if moved < 1e-10:
            break
    above, below = parts(log_z)
    above, below = (above - above.max()).exp(), torch.where(rows, (below - below[rows].max()).exp(), 0.0)
    second, reason = _variance(run, below, other)
    first = float(above.var()) / n2 / float(above.mean()) ** 2
    return log_z, second / float(w @ below) ** 2, first, reason


def _log_density(density: Law, z: Tensor) -> Tensor:
    state, _ = density.trial(z.to(density.dtype))
    return state["log_prior"] + state["log_likelihood"]


def _gaussian(z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky root of the covariance, shrunk to its diagonal by d / (d + effective size)."""
    centre = weight @ z
    off = z - centre
    covariance = off.T @ (weight[:, None] * off)
    size, d = 1 / float(weight.square().sum()), z.shape[1]
    least = 1e-12 * float(covariance.diagonal().max()) + 1e-300
    diagonal = torch.diag(covariance.diagonal().clamp_min(least))
    shrink = d / (d + size)
    return centre, torch.linalg.cholesky((1 - shrink) * covariance + shrink * diagonal + least * torch.eye(d).to(z))


def _variance(run: Run, value: Tensor, rows: Tensor) -> tuple[float, str]:
    """The variance of the mean of `value` over the draws `rows`, by the run's own rule, and why there is none."""
    if not run.shown.weighted:
        draws = len(value) // run.n
        kept = value[rows].view(max(1, int(rows.sum()) // draws), -1)
        found = chain_mean(kept)
        se, reason = found.se, found.reason
    else:
        half = torch.where(rows, run.log_weight, -math.inf)
        se, reason, _ = mean_se(value, half, run.genealogy)
    return float(se) ** 2, reason
