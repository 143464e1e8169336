"""Ranks of truths among draws: whether they are uniform, as they are where draws have the law of the truth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def chi_squared_tail(statistic: Tensor | float, freedom: float) -> Tensor:
    """() float64, the probability that a chi-squared variable exceeds `statistic`."""
    half = torch.as_tensor(statistic, dtype=torch.float64) / 2
    return torch.special.gammaincc(torch.tensor(freedom / 2, dtype=torch.float64), half)


def uniform_p_value(rank: Tensor, draws: int) -> float:
    """The p-value of Pearson's test that ranks (n,) among 0..`draws` are uniform."""
    count = torch.bincount(rank, minlength=draws + 1).double()
    expected = len(rank) / (draws + 1)
    return float(chi_squared_tail((count - expected).square().sum() / expected, draws))


def farthest(rank: np.ndarray, draws: int) -> float:
    """The largest deviation of the distribution function of ranks (n,) from uniform, in binomial standard deviations.

    References:
        Säilynoja, Bürkner & Vehtari (2022), Graphical test for discrete uniformity and its applications in
        goodness-of-fit evaluation and multiple sample comparison, Statistics and Computing 32.
    """
    count = np.bincount(rank, minlength=draws + 1).cumsum()[:-1]
    p = np.arange(1, draws + 1) / (draws + 1)
    return float((np.abs(count - len(rank) * p) / np.sqrt(len(rank) * p * (1 - p))).max())
