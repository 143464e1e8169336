"""Means over chains of correlated draws, with standard errors."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.core.estimate.variance import freedom_of

ENOUGH = 16
"""With this number of chains the spread of their means tells itself, to a fifth or better."""
BATCHES = 32
"""Batches into which fewer chains are cut in all."""
SHORT = 10
"""Draws that a batch must hold at least."""
LONG = 0.5
"""The largest correlation of neighbouring batches; above, memory is longer than they are."""

SEEN, APART = 50, 1.2
"""Where chains of this many draws or more differ by an R-hat above this, whose square is 1 + memory / length, their
memory is most of their length, and what is seen of each place is what the start has left there."""

SAME = "f is the same for all draws, so that their spread says nothing: what none shows may have a probability of about"


def chain_mean(value: Tensor) -> Estimate[Tensor]:
    """The mean of `value` (chains, draws, ...) over both axes with its standard error, or why there is none.

    The error is the spread of the means of batches: whole chains where there are `ENOUGH` of them, which sees modes
    between which chains do not move; else each chain is cut into parts of equal length. These must be long against the
    chain's memory: where neighbours in a chain are alike there is a reason instead of an error. Its degrees of freedom
    are those of the batches, for a single number of those that make the spread: a mode that few chains have met.

    References:
        Flegal & Jones (2010), Batch means and spectral variance estimators in Markov chain Monte Carlo, Annals of
        Statistics 38(2).
    """
    chains, draws = value.shape[:2]
    mean = value.mean((0, 1))
    cuts = 1 if chains >= ENOUGH else math.ceil(BATCHES / chains)
    length, named = draws // cuts, f"{chains} chain{'s' if chains != 1 else ''}"

    def without(where: Tensor | bool, reason: str) -> Estimate[Tensor]:
        return replace(found, se=torch.where(torch.as_tensor(where), math.nan, found.se), reason=reason)

    found = Estimate(mean, torch.zeros_like(mean), method="batch means")
    if cuts > 1 and length < SHORT:
        return without(True, f"{named} of {draws} draws: too few for a standard error; draw more, or run more chains")
    means = value[:, draws - cuts * length :].reshape(chains, cuts, length, *value.shape[2:]).mean(2)
    se = means.flatten(0, 1).std(0, correction=1) / math.sqrt(chains * cuts)
    freedom = chains * cuts - 1.0
    if mean.numel() == 1:
        freedom = freedom_of((means - means.mean((0, 1))).square().flatten().to(torch.float64), chains * cuts)
    found = replace(found, se=se, freedom=freedom)
    if cuts > 1:
        off = means - means.mean((0, 1))
        alike = (off[:, 1:] * off[:, :-1]).mean((0, 1)) > LONG * off.square().mean((0, 1))
        if alike.any():
            reason = f"{named} with a memory longer than a batch of {length} draws: draw more, or run more chains"
            return without(alike, reason)
    if (far := apart(value) > APART).any():
        reason = (
            f"each of {named} is somewhere else: R-hat between them is {float(apart(value).max()):.3g} for this mean, "
            "so they have not mixed. Draw longer; with separate modes use motes.Tempering with replicas=8"
        )
        return without(far, reason)
    same = value.amax((0, 1)) == value.amin((0, 1))
    return without(same, f"{SAME} 3 over the effective number of draws") if same.any() else found


def apart(value: Tensor) -> Tensor:
    """(...) the R-hat of `value` (chains, draws, ...) between whole chains; 0 for one or under `SEEN` draws."""
    if len(value) < 2 or value.shape[1] < SEEN:
        return torch.zeros(value.shape[2:], dtype=value.dtype)
    within, between = value.var(1).mean(0), value.mean(1).var(0)
    return torch.where(between > 0, (1 + between / within).sqrt(), 0.0)  # infinite where no chain moves
