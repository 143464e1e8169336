"""Independent populations of one model: estimates from all of them, errors from their spread.

Population j estimates the normaliser by Z_j, with E[Z_j] = Z, so that their mean has no bias either, and the weights of
all particles together, as they are, give the means: each population counts as much as its Z_j. What separates the
populations (a mode that some of them lost) is in their spread, where the error bar of a single population can't see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.core.estimate.population import Population
from motes.core.estimate.variance import StandardError
from motes.core.result import Result

P = TypeVar("P", bound=Population)

METHOD = "spread of the populations"
ALIKE = "it is the same in all populations, so that their spread says nothing"
ENDED = (Result.OK, Result.ALL_WEIGHTS_ZERO)
"""A population whose weights are all zero has ended too: its evidence is 0, and counts as that."""
UNEVEN = 1.0
"""Nats of standard deviation between the log evidences of populations above which there is no error bar: the estimate
then rests on a few of them, and which, is luck. Normal log evidences with a deviation of up to .8 have intervals that
cover .93 to .95 (k from 2 to 32), with a deviation of 1 .88 to .92."""


def shares(runs: Sequence[Population]) -> Tensor:
    """(k,) the parts that the populations have in the evidence; equal ones where there is none."""
    log_evidence = torch.tensor([run.log_evidence for run in runs], dtype=torch.float64)
    if not all(run.shown.weighted for run in runs) or not (log_evidence > -math.inf).any():
        return torch.full((len(runs),), 1 / len(runs), dtype=torch.float64)
    return torch.softmax(log_evidence, 0)


def spread(runs: Sequence[Population]) -> float:
    """The standard deviation between the log evidences of the populations, nats; infinite where one of them is zero."""
    found = [run.log_evidence for run in runs]
    return math.inf if -math.inf in found else float(torch.tensor(found, dtype=torch.float64).std())


def estimating(runs: Sequence[P]) -> list[P]:
    """The populations that estimates are made of: those that have ended, or all as long as none has."""
    ended = [run for run in runs if run.result in ENDED]
    return ended or list(runs)


def evidence_error(runs: Sequence[Population]) -> StandardError:
    """The standard error of the log of the mean evidence of some populations.

    It is the larger of two: the spread of Z_j over their mean, and what the spread of log Z_j says of a lognormal Z_j,
    whose rare large values few populations do not show.
    """
    k, first = len(runs), runs[0].particles_error
    if k == 1:
        return first
    log_evidence = torch.tensor([run.log_evidence for run in runs], dtype=torch.float64)
    deviation = spread(runs)
    if log_evidence.isnan().any() or deviation == 0:
        if first.value == 0 or (first.reason and not first.method):  # exact, or no estimate at all
            return first
        return StandardError(math.nan, METHOD, first.reason or ALIKE, freedom=k - 1)
    if reason := unknown(runs):
        return StandardError(math.nan, METHOD, reason, freedom=k - 1)
    relative = float((torch.softmax(log_evidence, 0) * k).std()) / math.sqrt(k)
    lognormal = math.sqrt(math.expm1(deviation**2) / k)
    return StandardError(max(relative, lognormal), METHOD, freedom=k - 1)


def unknown(runs: Sequence[Population]) -> str:
    """Why the spread of populations says nothing of the error of their estimates; empty if it does."""
    if any(run.result not in ENDED for run in runs):
        return "the populations have not come to their end, and stand for different laws"
    if not all(run.shown.weighted for run in runs):
        return ""
    dead = sum(run.log_evidence == -math.inf for run in runs)
    if dead:
        return f"{dead} of {len(runs)} populations have evidence 0, so that too few tell how much the others vary"
    deviation = spread(runs)
    if deviation < UNEVEN:
        return ""
    effective = 1 / float(shares(runs).square().sum())
    return (
        f"the log evidences of {len(runs)} populations have a standard deviation of {deviation:.2g} nats, so their "
        f"estimate rests on {effective:.1f} of them. Use more particles in each, or moves that find what others found"
    )


def mean(runs: Sequence[Population], value: Tensor, weight: Tensor) -> Estimate[Tensor]:
    """The weighted mean of `value` over two or more populations, with a standard error by their spread.

    Args:
        value: (rows, ...) float64, the rows of one population after those of the other.
        weight: (rows,) that sum to 1.
    """
    k = len(runs)
    rows = [run.n if run.shown.weighted else len(value) // k for run in runs]
    parts = list(zip(value.split(rows), weight.split(rows), strict=True))
    share = torch.stack([w.sum() for _, w in parts])
    sums = torch.stack([torch.tensordot(w, v, dims=1) for v, w in parts])  # (k, ...) share times mean
    total = torch.tensordot(weight, value, dims=1)
    if reason := unknown(runs):
        return Estimate(total, torch.full_like(total, math.nan), reason, k - 1, method=METHOD)
    share = share.view(-1, *[1] * total.ndim)
    keeps = (1 - 2 * share + share.square().sum(0)).clamp(
        min=1e-3
    )  # as in core/estimate/variance.py, a family a population
    se = ((sums - share * total).square() / keeps).sum(0).sqrt()
    own = runs[0].own_error
    alike = (value.amax(0) == value.amin(0)) | (se == 0)
    if alike.any():
        reason = (own.means if own is not None else "") or ALIKE
        return Estimate(total, torch.where(alike, math.nan, se), reason, k - 1, method=METHOD)
    return Estimate(total, se, "", k - 1, method=METHOD)
