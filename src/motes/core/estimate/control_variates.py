"""Control variates that are linear in the score: expectations with the part taken out that the score explains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core import replicas
from motes.core.estimate.population import Population
from motes.errors import MotesError, ShapeError, name_particles

FOLDS = 5
RIDGES = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, math.inf)
"""Ridge penalties, in units of the variance of a standardised score; the last one is no control at all."""
RANK = 1e-12
"""Directions with less than this part of the largest variance count as having none."""


def controlled(value: Tensor, score: Tensor, weight: Tensor, fold: Tensor) -> Tensor:
    """(N, p) values with the same mean under the target and less spread: f - b . score.

    The score, the gradient of the target's log-density, has mean zero under the target (where the density times a
    constant vanishes at infinity, which unconstrained coordinates see to). The best b is that of a regression of f on
    the score; for a Gaussian target and a linear f it leaves a constant.

    Cross-fitting: the b of a fold comes from the other folds, so that, folds being independent, b . score has mean zero
    given b and the regression adds no bias of its own; a weighted mean keeps its bias of order 1/N from dividing by the
    sum of the weights. Each f gets the ridge penalty under which its held-out spread is smallest, among them infinity,
    that is no control. Choosing it by the values themselves is a bias too, of smaller order.

    References:
        Assaraf & Caffarel (1999), Zero-variance principle for Monte Carlo algorithms, Physical Review Letters 83(23).
        Mira, Solgi & Imparato (2013), Zero variance Markov chain Monte Carlo for Bayesian estimators, Statistics and
        Computing 23(5), eq. 7 with a polynomial of degree one.
        South, Oates, Mira & Drovandi (2023), Regularized zero-variance control variates, Bayesian Analysis 18(3).

    Args:
        value: (N, p) float64, finite.
        score: (N, d), finite.
        weight: (N,) that sum to 1.
        fold: (N,) int64, of which fold a point is; dependent points should share one.
    """
    score = score.to(torch.float64)
    centred, f = score - weight @ score, value - weight @ value
    scale = (weight @ centred.square()).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    centred = centred / scale
    folds = fold.unique().tolist()
    if len(fold[weight > 0].unique()) < 2 or any(float(weight[fold != k].sum()) <= 0 for k in folds):
        return value  # nothing to learn from outside of the only fold that counts
    candidate = torch.empty(len(RIDGES), *value.shape, dtype=torch.float64)
    for k in folds:
        out = fold == k
        b = _coefficients(centred[~out], f[~out], weight[~out])
        candidate[:, out] = value[out] - (score[out] / scale) @ b
    spread = torch.stack([weight @ (c - weight @ c).square() for c in candidate])  # (ridges, p)
    best = spread.argmin(0)
    return candidate.gather(0, best.expand(1, *value.shape))[0]


def _coefficients(score: Tensor, f: Tensor, weight: Tensor) -> Tensor:
    """(ridges, d, p) weighted ridge regressions, with intercept, of f on standardised scores."""
    weight = weight / weight.sum()
    s, f = score - weight @ score, f - weight @ f
    weighted = weight[:, None] * s
    size, direction = torch.linalg.eigh(weighted.T @ s)
    pull = direction.T @ (weighted.T @ f)
    some = size > RANK * float(size[-1])
    shrunk = [torch.where(some, 1 / (size + r), 0.0)[:, None] * pull for r in RIDGES]
    return direction @ torch.stack(shrunk)


def control(run: Population, values: list[Tensor], weight: Tensor) -> list[Tensor]:
    """The `values` (N, ...) of a run with the score taken out, all from one regression.

    Raises:
        MotesError: the run knows no score, or one that is not finite where there is weight.
    """
    if run.score is None:
        raise MotesError(
            "control variates need the gradient of the target's log-density at the draws, and this run has none: "
            + _remedy(run)
        )
    score = run.score.reshape(-1, run.score.shape[-1])
    if len(score) != len(weight):
        raise ShapeError(f"the score has {len(score)} rows for {len(weight)} draws")
    alive = weight > 0
    bad = (alive & ~torch.isfinite(score).all(1)).nonzero().flatten().tolist()
    if bad:
        raise MotesError(f"the score is not finite for {name_particles(bad)} of positive weight")
    score = torch.where(alive[:, None], score, 0.0)
    flat = [v.reshape(len(v), -1) for v in values]
    joined = controlled(torch.cat(flat, 1), score, weight, folds(run, len(weight)))
    return [c.reshape(v.shape) for c, v in zip(joined.split([f.shape[1] for f in flat], 1), values, strict=True)]


def _remedy(run: Population) -> str:
    """How a run comes to know its score."""
    kernel = run.setup["settings"].get("kernel") if isinstance(run.setup["settings"], dict) else None
    if not run.shown.weighted:
        return "run Chains(..., keep_score=True) with a kernel that evaluates gradients, as the default one does"
    if run.result.value != "OK":
        return f"it ended as {run.result.value}; resume it, if its kernel has gradients"
    if kernel is None:
        return f"a {run.setup['model']} run keeps none; run.mean(f) without control has its plain error bar"
    name = kernel.get("name") if isinstance(kernel, dict) else kernel
    return (
        f"its kernel, {name}, evaluates no gradients, or {run.setup['model']} does not keep them; run Tempering or "
        "NestedSampling with kernel='mala' or 'hmc' for it, or leave control away"
    )


def folds(run: Population, rows: int) -> Tensor:
    """(rows,) int64: families of particles, whole chains, or where these are few stretches of time of all chains."""
    if run.replicas:
        parts = replicas.estimating(run.replicas)
        size = [part.n if run.shown.weighted else rows // len(parts) for part in parts]
        return torch.cat([folds(part, k) for part, k in zip(parts, size, strict=True)])
    if run.shown.weighted:
        return run.genealogy.anchors[0].slot.long() % FOLDS
    draws = rows // run.n
    if run.n >= 2 * FOLDS:
        return torch.arange(run.n).repeat_interleave(draws) % FOLDS
    return (torch.arange(draws) * FOLDS // draws).repeat(run.n)
