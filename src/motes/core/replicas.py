"""Independent populations of one model: estimates from all of them, errors from their spread, whether they agree.

Population j estimates the normaliser by Z_j, with E[Z_j] = Z, so that their mean has no bias either, and the weights of
all particles together, as they are, give the means: each population counts as much as its Z_j. What separates the
populations (a mode that some of them lost) is in their spread, where the error bar of a single population can't see it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from motes.core import tree
from motes.core.estimate.estimate import Estimate
from motes.core.estimate.variance import StandardError
from motes.core.remark import ALL, Remark
from motes.core.result import Result
from motes.errors import MotesError

if TYPE_CHECKING:
    from motes.core.run import Run

METHOD = "spread of the populations"
ALIKE = "it is the same in all populations, so that their spread says nothing"
ENDED = (Result.OK, Result.ALL_WEIGHTS_ZERO)
"""A population whose weights are all zero has ended too: its evidence is 0, and counts as that."""
UNEVEN = 1.0
"""Nats of standard deviation between the log evidences of populations above which there is no error bar: the estimate
then rests on a few of them, and which, is luck. Normal log evidences with a deviation of up to .8 have intervals that
cover .93 to .95 (k from 2 to 32), with a deviation of 1 .88 to .92."""
ALARM = 1e-3
"""The chance that healthy populations are said to disagree, were their error bars exact."""
ALLOWANCE = 1.5
"""Populations disagree where they spread by this factor more than chance allows: their own bars are estimates too."""
GROSS = 10.0
"""Where populations spread by more than this many of their error bars, something separates them, and there is no
error bar: with modes that 1 to 5 of 8 had met, intervals by the spread covered about half of the time."""
COLUMNS = 256
"""How many means are compared."""
NUMBER = re.compile(r"-?\b\d+(\.\d+)?(e[-+]?\d+)?\b|\b(nan|inf)\b")
"""What may differ between two remarks that say the same."""
SHARE = 1 / 3
"""What populations with less of the evidence than this have to say puts nothing in doubt that all estimate together."""


def shares(runs: Sequence[Run]) -> Tensor:
    """(k,) the parts that the populations have in the evidence; equal ones where there is none."""
    log_evidence = torch.tensor([run.log_evidence for run in runs], dtype=torch.float64)
    if not all(run.shown.weighted for run in runs) or not (log_evidence > -math.inf).any():
        return torch.full((len(runs),), 1 / len(runs), dtype=torch.float64)
    return torch.softmax(log_evidence, 0)


def spread(runs: Sequence[Run]) -> float:
    """The standard deviation between the log evidences of the populations, nats; infinite where one of them is zero."""
    found = [run.log_evidence for run in runs]
    return math.inf if -math.inf in found else float(torch.tensor(found, dtype=torch.float64).std())


def estimating(runs: Sequence[Run]) -> list[Run]:
    """The populations that estimates are made of: those that have ended, or all as long as none has."""
    ended = [run for run in runs if run.result in ENDED]
    return ended or list(runs)


def evidence_error(runs: Sequence[Run]) -> StandardError:
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


def unknown(runs: Sequence[Run]) -> str:
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


def mean(runs: Sequence[Run], value: Tensor, weight: Tensor) -> Estimate[Tensor]:
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
        return Estimate(total, torch.full_like(total, math.nan), reason, k - 1)
    share = share.view(-1, *[1] * total.ndim)
    keeps = (1 - 2 * share + share.square().sum(0)).clamp(
        min=1e-3
    )  # as in core/estimate/variance.py, a family a population
    se = ((sums - share * total).square() / keeps).sum(0).sqrt()
    own = runs[0].own_error
    alike = (value.amax(0) == value.amin(0)) | (se == 0)
    if alike.any():
        reason = (own.means if own is not None else "") or ALIKE
        return Estimate(total, torch.where(alike, math.nan, se), reason, k - 1)
    return Estimate(total, se, "", k - 1)


def remarks(runs: Sequence[Run]) -> tuple[Remark, ...]:
    """What the populations have to say, each sentence once, and that they disagree, if they do."""
    said: dict[str, list[int]] = {}
    for j, run in enumerate(runs):
        for remark in run.remarks:
            said.setdefault(NUMBER.sub("#", remark), []).append(j)
    share, found = shares(runs), []
    for key, who in said.items():
        first = next(r for r in runs[who[0]].remarks if NUMBER.sub("#", r) == key)
        alike = len({str(r) for j in who for r in runs[j].remarks if NUMBER.sub("#", r) == key}) == 1
        many = len(set(who))
        text = (
            str(first)
            if alike and many == len(runs)
            else (f"{many} of {len(runs)} populations: {first}" + ("" if alike else f" (this is population {who[0]})"))
        )
        heavy = float(share[sorted(set(who))].sum()) > SHARE
        found.append(Remark(text, first.doubts if heavy else (), withholds=first.withholds and heavy))
    return (*found, *([apart] if (apart := disagreement(runs)) else []))


def disagreement(runs: Sequence[Run]) -> Remark | None:
    """A remark where populations differ by more than their own error bars allow.

    All are draws from one law, so the standard deviation of an estimate between them is compared with the middle one of
    the bars that they state; were these exact, its square would be chi-squared. A population without a bar states
    nothing, and what it estimates counts all the same.
    """
    if len(runs) < 2:
        return None
    found = [(name, value, error) for name, value, error in _stated(runs) if error.isfinite().any()]
    limit = math.sqrt(_chi_squared(ALARM / max(1, len(found)), len(runs) - 1) / (len(runs) - 1)) * ALLOWANCE
    apart = []
    for name, value, error in found:
        stated = float(error[error.isfinite()].quantile(0.5))
        ratio = float(value.std()) / stated if stated > 0 else 0.0
        if ratio > limit:
            apart.append((ratio, name, value, stated))
    if not apart:
        return None
    ratio, name, value, stated = max(apart, key=lambda a: a[0])
    others = f" ({len(apart)} estimates of {len(found)} do)" if len(apart) > 1 else ""
    return Remark(
        f"the {len(runs)} populations disagree by more than they state: {name} goes from {float(value.min()):.4g} to "
        f"{float(value.max()):.4g}, where each is known to ± {stated:.2g}, a spread {ratio:.1f} times as large"
        f"{others}. Some may have lost a mode, or not have mixed: look at run.replicas, and use more particles in each",
        ALL,
        withholds=ratio > GROSS,
    )


def _chi_squared(beyond: float, freedom: int) -> float:
    """What a chi-squared variable exceeds with probability `beyond`."""
    low, high = 0.0, 10.0 * (freedom + 100)
    for _ in range(60):
        middle = 0.5 * (low + high)
        tail = torch.special.gammaincc(torch.tensor(freedom / 2).double(), torch.tensor(middle / 2).double())
        low, high = (middle, high) if tail > beyond else (low, middle)
    return low


def _stated(runs: Sequence[Run]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every estimate that can be compared: its name, its values (k,) and the error bars (k,) that populations state."""
    log_evidence = torch.tensor([run.log_evidence for run in runs], dtype=torch.float64)
    if log_evidence.isfinite().all():
        yield (
            runs[0].setup["quantity"],
            log_evidence,
            torch.tensor([run.particles_error.value for run in runs], dtype=torch.float64),
        )
    flat = [_numbers(run) for run in runs if run.log_evidence != -math.inf]
    if not flat or any(not names for names, _ in flat):
        return
    names, _ = flat[0]
    try:
        found = [run.particles_mean(run.values(lambda _, x=x: x)) for run, (_, x) in zip(runs, flat, strict=False)]
    except MotesError:  # not finite
        return
    for i, name in enumerate(names):
        values = torch.stack([estimate.value[i] for estimate in found])
        yield f"the mean of {name}", values, torch.stack([estimate.se[i] for estimate in found])


def _numbers(run: Run) -> tuple[list[str], Tensor]:
    """The first `COLUMNS` numbers of each draw, with their names."""
    names, columns = [], []
    for where, leaf in tree.leaves(run.flat, "x"):
        if isinstance(leaf, Tensor) and len(names) < COLUMNS:
            flat = leaf.reshape(len(leaf), -1)[:, : COLUMNS - len(names)].double()
            names += [f"{where}[{i}]" for i in range(flat.shape[1])]
            columns.append(flat)
    return names, torch.cat(columns, 1) if columns else torch.zeros(run.n, 0)
