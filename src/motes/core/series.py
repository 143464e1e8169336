"""Means over chains of correlated draws, with standard errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BATCHES = 32
"""So many independent-looking means tell their own spread to an eighth."""
SHORT = 10
"""Draws that a batch must hold at least."""


def chain_mean(value: Tensor) -> tuple[Tensor, Tensor, str]:
    """The mean of `value` (chains, draws, ...) over both axes, its standard error, and why there is none, if so.

    The error is the spread of the means of batches: whole chains where there are `BATCHES` of them or more, which
    sees modes between which chains do not move; else each chain is cut into enough parts of equal length, which must be
    long against the chain's memory.

    References:
        Flegal & Jones (2010), Batch means and spectral variance estimators in Markov chain Monte Carlo, Annals of
        Statistics 38(2).
    """
    chains, draws = value.shape[:2]
    mean = value.mean((0, 1))
    cuts = 1 if chains >= BATCHES else math.ceil(BATCHES / chains)
    length = draws // cuts
    if cuts > 1 and length < SHORT:
        reason = f"{chains} chains of {draws} draws are too few for a standard error: draw more, or run more chains"
        return mean, torch.full_like(mean, math.nan), reason
    means = value[:, draws - cuts * length :].reshape(chains * cuts, length, *value.shape[2:]).mean(1)
    return mean, means.std(0, correction=1) / math.sqrt(len(means)), ""
