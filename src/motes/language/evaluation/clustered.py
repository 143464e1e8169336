"""Accuracy where answers come in clusters: questions on one passage, or several samples of each question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from motes.core.estimate.beta import check_level
from motes.core.run import Run
from motes.errors import MotesError, ShapeError
from motes.language.evaluation.accuracy import BOWYER, Accuracy, Judge, worth

REFERENCES: Final = (BOWYER,)
GRID: Final = 2000
"""Points of the grid over the mean; the other grid has a tenth of them."""


def clustered_accuracy(
    right: Tensor | Sequence[float],
    asked: Tensor | Sequence[float],
    *,
    level: float = 0.95,
    prior: tuple[float, float] = (1.0, 1.0),
    concentration: tuple[float, float] = (1.0, 1.0),
) -> Accuracy:
    """The accuracy on a question of a new cluster, from right answers counted by cluster.

    Answers within a cluster resemble each other, so that many of them say less than as many independent ones. With
    s_t of n_t right in cluster t,

        mu ~ Beta(prior),  d ~ Gamma(concentration),  theta_t ~ Beta(d mu, d (1 - mu)),  s_t ~ Binomial(n_t, theta_t),

    and theta_t is integrated out in closed form (beta-binomial). What is left has two dimensions, which are summed over
    a grid: 2000 points of mu times 200 of log d. Nothing is drawn, and the error is below 1e-3.

    The clusters may as well be the questions themselves, each sampled several times. One answer in every cluster gives
    the posterior of `accuracy` exactly, since a single answer is right with probability mu whatever d is.

    Args:
        right: (T,) right answers in each cluster; need not be whole.
        asked: (T,) answers in each cluster.
        level: how much of the posterior the (equal-tailed) interval holds.
        prior: of the mean mu, Beta.
        concentration: of d, Gamma with this shape and rate: small d, unlike clusters.

    References:
        Bowyer, Aitchison & Ivanova (2025), Position: don't use the CLT in LLM evals, ICML, section 3.2 (there by
        importance sampling).

    Example:
        >>> clustered_accuracy([5, 5, 0, 0], [5, 5, 5, 5]).n
        4.0
    """
    check_level(level)
    s, n = (torch.as_tensor(v, dtype=torch.float64).detach().cpu() for v in (right, asked))
    if s.ndim != 1 or s.shape != n.shape or not len(s):
        raise ShapeError(f"right and asked must have one number a cluster, not {tuple(s.shape)} and {tuple(n.shape)}")
    if not ((s >= 0) & (s <= n) & (n > 0)).all():
        bad = torch.nonzero(~((s >= 0) & (s <= n) & (n > 0)))[:5, 0].tolist()
        raise MotesError(f"clusters {bad}: there must be answers, and at least 0 and at most all of them right")
    if min(prior) <= 0 or min(concentration) <= 0:
        raise MotesError(f"prior and concentration must be positive numbers, not {prior} and {concentration}")
    mu = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    shape, rate = concentration
    # above lies less than exp(-100) of the prior, and below d is as good as 0
    log_d = torch.linspace(-40 / max(shape, 2), math.log(shape + 100) + 0.5, GRID // 10, dtype=torch.float64)
    d = log_d.exp() / rate
    a, b = (mu[:, None] * d)[None], ((1 - mu)[:, None] * d)[None]
    log_likelihood = (shape * log_d - log_d.exp()).expand(GRID, len(d)).clone()  # the prior, and then the likelihood
    same, times = torch.unique(torch.stack([s, n], 1), dim=0, return_counts=True)  # equal clusters are counted once
    for (s_t, n_t), count in zip(same, times, strict=True):
        log_likelihood += count * (_log_beta(a + s_t, b + n_t - s_t) - _log_beta(a, b))[0]
    log_prior = (prior[0] - 1) * mu.log() + (prior[1] - 1) * torch.log1p(-mu)
    mass = torch.softmax(torch.logsumexp(log_likelihood, 1) + log_prior, 0)
    low, high = _quantile(mass, (1 - level) / 2), _quantile(mass, (1 + level) / 2)
    return Accuracy(float((s / n).mean()), float(mass @ mu), low, high, level, float(len(s)))


def accuracy_of_runs(
    runs: Sequence[Run | tuple[list[str], Tensor]], judges: Judge | Sequence[Judge], *, level: float = 0.95
) -> Accuracy:
    """The accuracy over questions, from a weighted run for each of them.

    Run q is worth n_q independent answers of which the share p_q is right, see `accuracy_of_run`; questions are the
    clusters of `clustered_accuracy`, so the interval is for the probability that a new question is answered rightly.

    Args:
        runs: a run, or texts with log-weights, for every question.
        judges: a judge for each, or one for all.
        level: how much of the posterior the interval holds.
    """
    judges = [judges] * len(runs) if callable(judges) else list(judges)
    if len(judges) != len(runs):
        raise ShapeError(f"{len(runs)} runs need as many judges, or one for all, not {len(judges)}")
    pairs = [worth(run, judge) for run, judge in zip(runs, judges, strict=True)]
    return clustered_accuracy([p * n for p, n in pairs], [n for _, n in pairs], level=level)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _quantile(mass: Tensor, p: float) -> float:
    """Where the distribution function of cells of equal width reaches p, linear within a cell."""
    above = mass.cumsum(0)
    cell = min(int((above < p).sum()), len(mass) - 1)
    before = float(above[cell] - mass[cell])
    return (cell + (p - before) / max(float(mass[cell]), 1e-300)) / len(mass)
