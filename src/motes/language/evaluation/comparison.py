"""Whether one model is better than another, from the answers of both: independent or on the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from motes.core import weights
from motes.core.estimate.beta import check_level
from motes.core.estimate.binormal import binormal_cdf
from motes.errors import MotesError, ShapeError, check_whole, warn
from motes.language.evaluation.accuracy import BOWYER, Correct, check_values, counts
from motes.rng import Rng

REFERENCES: Final = (BOWYER,)
ROUNDS: Final = 30
POWERS: Final = tuple(0.5**k for k in range(12))
FREEDOM: Final = 5
FEW: Final = 200
"""An effective number of posterior draws below which an interval is too rough."""


@dataclass(frozen=True)
class Comparison:
    """The posterior of the difference of two accuracies.

    Attributes:
        difference: its posterior mean, first less second.
        low: where its (equal-tailed) interval begins.
        high: where it ends.
        better: the posterior probability that the first model is better.
        level: how much of the posterior the interval holds.
        ess: how many independent draws of the posterior these numbers rest on.
        correlation: the posterior mean of the latent correlation; 0 for independent answers.
    """

    difference: float
    low: float
    high: float
    better: float
    level: float
    ess: float
    correlation: float = 0.0

    def __repr__(self) -> str:
        return (
            f"difference {self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f} with {100 * self.level:g} %), "
            f"P(first is better) = {self.better:.3f}"
        )


def compare(
    first: Correct,
    second: Correct,
    *,
    level: float = 0.95,
    prior: tuple[float, float] = (1.0, 1.0),
    draws: int = 2**16,
    seed: int = 0,
) -> Comparison:
    """Compare two accuracies whose questions have nothing to do with each other.

    Both posteriors are Beta, and `draws` pairs are drawn from them; the mean of the difference is exact.

    Args:
        first: (n,) answers of the first model, or its `Counts(right=, wrong=)`.
        second: (m,) the same of the second.
        level: how much of the posterior the interval holds.
        prior: the Beta prior of each.
        draws: pairs from the posterior; the error of `better` is at most 1 / (2 sqrt(draws)).
        seed: of the draws.

    References:
        Bowyer, Aitchison & Ivanova (2025), Position: don't use the CLT in LLM evals, ICML, section 3.3.

    Example:
        >>> from motes.language.evaluation import Counts
        >>> compare(Counts(9, 1), Counts(5, 5)).better > 0.9
        True
    """
    check_level(level)
    _check_draws(draws, prior)
    rng = Rng(seed).at("evaluation/compare")
    posteriors = [(prior[0] + right, prior[1] + wrong) for right, wrong in (counts(first), counts(second))]
    x, y = (rng.at(name).beta((draws,), a, b) for name, (a, b) in zip(("first", "second"), posteriors, strict=True))
    mean = [a / (a + b) for a, b in posteriors]
    even = torch.full((draws,), 1 / draws, dtype=torch.float64)
    low, high = (_quantile(x - y, even, p) for p in ((1 - level) / 2, (1 + level) / 2))
    return Comparison(mean[0] - mean[1], low, high, float((x > y).double().mean()), level, float(draws))


def compare_paired(
    first: Tensor | Sequence[bool],
    second: Tensor | Sequence[bool],
    *,
    level: float = 0.95,
    correlation: tuple[float, float] = (4.0, 2.0),
    draws: int = 2**15,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same questions: what is hard for one is likely hard for the other.

    Each question has a pair of latent normals with correlation rho, means Phi^-1(theta_A) and Phi^-1(theta_B) and unit
    variances; a model is right where its latent is positive. The four possible outcomes then have probabilities

        both      Phi_2(m_A, m_B; rho) =: c,     only A  theta_A - c,    only B  theta_B - c,    none  1 - theta_A -
        theta_B + c,

    and the counts of the four are sufficient. The prior is uniform for the accuracies and Beta, stretched to [-1, 1],
    for rho. The posterior is found by importance sampling in (m_A + m_B, m_A - m_B, artanh rho). The proposal is
    Student's t with five degrees of freedom, whose tails are heavier than those of any posterior here, so that weights
    are bounded; its mean and covariance are fitted in rounds before, and only the draws of the last one count.
    Estimates are consistent, with a bias of order 1/draws; `ess` says what they rest on.

    Args:
        first: (n,) answers of the first model, true or false.
        second: (n,) the answers of the second to the same questions.
        level: how much of the posterior the interval holds.
        correlation: parameters of the Beta prior of (rho + 1) / 2.
        draws: from the proposal.
        seed: of the draws.

    References:
        Bowyer, Aitchison & Ivanova (2025), Position: don't use the CLT in LLM evals, ICML, section 3.4 (there the
        proposal is the prior, and few of its draws count once there are some hundred questions).

    Example:
        >>> a, b = torch.tensor([1, 1, 1, 1, 1, 1, 0, 0] * 4), torch.tensor([1, 1, 1, 1, 0, 0, 0, 0] * 4)
        >>> compare_paired(a, b).better > compare(a, b).better
        True
    """
    check_level(level)
    _check_draws(draws, correlation)
    a, b = (torch.as_tensor(v) for v in (first, second))
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ShapeError(f"both models must answer the same questions, not {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = check_values(a, len(a)), check_values(b, len(b))
    if not (((a == 0) | (a == 1)) & ((b == 0) | (b == 1))).all():
        raise MotesError("paired answers must be right or wrong; shares have no joint outcome to be counted")
    n, right = len(a), (float(a.sum()), float(b.sum()))
    table = torch.stack([(a * b).sum(), (a * (1 - b)).sum(), ((1 - a) * b).sum(), ((1 - a) * (1 - b)).sum()])

    rng = Rng(seed).at("evaluation/paired")
    share = [(v + 1) / (n + 2) for v in right]
    start = [torch.special.ndtri(torch.tensor(v, dtype=torch.float64)) for v in share]
    spread = sum(v * (1 - v) / n * 2 * math.pi * math.exp(float(m) ** 2) for v, m in zip(share, start, strict=True))
    mean = torch.stack([start[0] + start[1], start[0] - start[1], torch.tensor(0.5, dtype=torch.float64)])
    factor = torch.diag(torch.tensor([2 * spread, 2 * spread, 1.0], dtype=torch.float64).sqrt())
    whole = 0
    for j in range(ROUNDS):
        z, log_proposal = _student(rng.at(f"round-{j}"), mean, factor, 2048)
        log_weight = _log_posterior(z, table, correlation)[0] - log_proposal
        # weights to a power that leaves 200 effective draws, so that a poor start is not mistaken for the posterior
        power = next((p for p in POWERS if weights.ess(p * log_weight) >= 200), POWERS[-1])
        w = weights.normalise(power * log_weight)
        mean = w @ z
        off = z - mean
        factor = torch.linalg.cholesky((w[:, None] * off).T @ off + 1e-12 * torch.eye(3, dtype=torch.float64))
        whole += power == 1
        if whole == 2:
            break
    z, log_proposal = _student(rng, mean, factor, draws)
    log_posterior, difference, rho = _log_posterior(z, table, correlation)
    log_weight = log_posterior - log_proposal
    ess = weights.ess(log_weight)
    if ess < FEW:
        warn(f"the posterior of the paired comparison rests on {ess:.0f} effective draws of {draws}: raise draws")
    w = weights.normalise(log_weight)
    low, high = (_quantile(difference, w, p) for p in ((1 - level) / 2, (1 + level) / 2))
    better = float(w @ (difference > 0).double())
    return Comparison(float(w @ difference), low, high, better, level, ess, float(w @ rho))


def _student(rng: Rng, mean: Tensor, factor: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """Student's t with five degrees of freedom, (draws, 3), and its log-density up to a constant."""
    normal = rng.at("normal").normal((draws, 3), dtype=torch.float64)
    e = normal / (rng.at("scale").gamma((draws,), FREEDOM / 2) / (FREEDOM / 2)).sqrt()[:, None]
    return mean + e @ factor.T, -(FREEDOM + 3) / 2 * torch.log1p(e.square().sum(1) / FREEDOM)


def _log_posterior(z: Tensor, table: Tensor, correlation: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Up to a constant, at z = (m_A + m_B, m_A - m_B, artanh rho) (draws, 3); with theta_A - theta_B and rho there."""
    h, k, rho = 0.5 * (z[:, 0] + z[:, 1]), 0.5 * (z[:, 0] - z[:, 1]), z[:, 2].tanh().clamp(-1 + 1e-12, 1 - 1e-12)
    # each outcome as an orthant of its own, so that none is a difference of nearly equal numbers
    signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    p = torch.stack([binormal_cdf(a * h, b * k, a * b * rho) for a, b in signs], 1).clamp_min(1e-300)
    log_likelihood = torch.where(table == 0, 0.0, table * p.log()).sum(1)
    a, b = correlation  # Beta in (1 + rho)/2 = sigmoid(2 artanh rho), times its derivative
    log_rho = a * torch.nn.functional.logsigmoid(2 * z[:, 2]) + b * torch.nn.functional.logsigmoid(-2 * z[:, 2])
    difference = torch.special.ndtr(h) - torch.special.ndtr(k)
    return log_likelihood - 0.5 * (h * h + k * k) + log_rho, difference, rho


def _quantile(x: Tensor, weight: Tensor, p: float) -> float:
    order = torch.argsort(x)
    at = torch.searchsorted(weight[order].cumsum(0), torch.tensor(p, dtype=torch.float64))
    return float(x[order][min(int(at), len(x) - 1)])


def _check_draws(draws: int, prior: tuple[float, float]) -> None:
    check_whole(100, draws=draws)
    if not (min(prior) > 0 and math.isfinite(sum(prior))):
        raise MotesError(f"a Beta prior needs two positive numbers, not {prior}")
