"""Best of n: the law of the winner, and how far it is from the model's, exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.weights import normalise
from motes.errors import ShapeError, check_whole


def best_of_n_law(reward: Tensor, log_weight: Tensor, n: int) -> Tensor:
    """(M,) log-probability that each of M texts wins when n independent draws compete by reward.

    pi_n(y) = p(y) (F(r)^n - F^-(r)^n) / (F(r) - F^-(r)), F the distribution function of the reward and F^- its left
    limit: a level set of the reward wins as one, and within it texts keep their proportions (ties go to the first
    draw). Given a weighted sample instead of the law, it is the weighted empirical winner's law, consistent and
    not unbiased.

    Args:
        reward: (M,) of each text.
        log_weight: (M,) log-probabilities or log-weights, nats; they are normalised.
        n: draws that compete.

    References:
        Beirami et al. (2024), Theoretical guarantees on the best-of-n alignment policy, arXiv 2401.01879, section 2.
    """
    check_whole(1, n=n)
    if reward.shape != log_weight.shape or reward.ndim != 1:
        raise ShapeError(f"rewards {tuple(reward.shape)} and log-weights {tuple(log_weight.shape)} must both be (M,)")
    p = normalise(log_weight.double())
    _, level = torch.unique(reward.double(), return_inverse=True)
    mass = torch.zeros(int(level.max()) + 1, dtype=torch.float64).index_add_(0, level, p)
    upto = mass.cumsum(0).clamp(max=1.0)
    upto[-1] = 1.0
    below = torch.cat([upto.new_zeros(1), upto[:-1]])
    # F^n - F^-^n = (F - F^-) sum_k F^k F^-^(n-1-k), which does not cancel
    rise = -torch.expm1(n * (torch.log(below) - torch.log(upto))) * upto**n
    return p.log() + (rise.log() - mass.log())[level]


def best_of_n_divergence(reward: Tensor, log_weight: Tensor, n: int) -> float:
    """KL(winner's law || model's law), nats, exact for the law (or the weighted sample) that is given."""
    winner, law = best_of_n_law(reward, log_weight, n), normalise(log_weight.double())
    part = winner.exp()
    return float(torch.where(part > 0, part * (winner - law.log()), 0.0).sum())


def best_of_n_bound(n: int) -> float:
    """log n - (n - 1) / n, the divergence of the winner's law where no two texts have one reward; else it is less."""
    check_whole(1, n=n)
    return math.log(n) - (n - 1) / n


def best_of_n_estimate(winner_probability: Tensor, n: int) -> Tensor:
    """Beirami et al.'s approximation of the divergence from the model's probability e of a winning text, nats.

    (1-e)^n (log n + (n-1) log(1-e) - (n-1)/n) + (1-(1-e)^n) log((1-(1-e)^n) / e); average it over winners.
    """
    check_whole(1, n=n)
    e = winner_probability.double()
    miss = torch.exp(n * torch.log1p(-e))
    first = torch.where(miss > 0, miss * (math.log(n) + (n - 1) * torch.log1p(-e) - (n - 1) / n), 0.0)
    return first + (1 - miss) * torch.log((1 - miss) / e)
