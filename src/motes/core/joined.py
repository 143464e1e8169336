"""Several populations of one model as one run, and whether they agree."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from motes.core import replicas, tree
from motes.core.estimate import coarse_level
from motes.core.estimate.ranks import chi_squared_tail
from motes.core.estimate.systematic import Systematic
from motes.core.history.genealogy import Genealogy
from motes.core.particles import Particles
from motes.core.remark import ALL, EVIDENCE, Remark
from motes.core.result import Result
from motes.core.run import Run
from motes.core.trace import Trace
from motes.errors import MotesError
from motes.rng import Rng

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


def joined(runs: Sequence[Run], setup: dict[str, Any], result: Result, *, final: bool = True) -> Run:
    """The run that several populations are together: all their particles, with the weights that they have.

    The log-mean-exp of these is the log of the mean of the populations' evidences, and means weigh each population by
    its evidence. As long as some populations have ended, those that have not are left out of the particles, of the view
    and of all estimates; they are in `replicas` all the same.

    Args:
        runs: the populations that have begun.
        setup: what the run is told by, with their seed and n and the number of "replicas".
        result: how the run ended.
        final: whether to look for disagreement, which a checkpoint on the way need not.
    """
    parts = replicas.estimating(runs)
    first, total = parts[0], sum(run.n for run in parts)
    shift = [0.0 if run.n * len(parts) == total else math.log(total / (run.n * len(parts))) for run in parts]
    places = [0, *torch.tensor([run.n for run in parts]).cumsum(0).tolist()]
    scores = [run.score for run in parts if run.score is not None]
    particles = Particles(
        x={},
        log_weight=torch.cat([run.log_weight + s for run, s in zip(parts, shift, strict=True)]),
        ancestor=torch.cat([run.particles.ancestor + a for run, a in zip(parts, places, strict=False)]),
        root=torch.cat([run.particles.root + a for run, a in zip(parts, places, strict=False)]),
        t=max(run.particles.t for run in parts),
    )
    run = Run(
        particles=particles,
        genealogy=first.genealogy if len(parts) == 1 else Genealogy.start(total),
        trace=Trace({**row, "replica": float(j)} for j, run in enumerate(runs) for row in run.trace.rows),
        result=result,
        view=type(first.shown).joined([run.view for run in parts]),
        setup=setup,
        references=first.references,
        own_error=first.own_error if len(parts) == 1 else None,
        score=torch.cat(scores) if len(scores) == len(parts) else None,
        remarks=remarks(parts) if final else (),
        replicas=tuple(runs),
        systematic=_systematic(parts),
        coarse=coarse_level.joined([run.coarse for run in parts], places, shift),
    )
    return told_of_systematic(run) if final else run


def told_of_systematic(run: Run) -> Run:
    """The run with a remark where its systematic error is surely more than that of its particles, or unknown."""
    found, error = run.systematic, run.particles_error
    if found is None or error.reason:
        return run
    unknown = math.isnan(found.value)
    if not (unknown or found.exceeds(error.value)):
        return run
    same = [remark for remark in run.remarks if found.text in remark]
    rest = [remark for remark in run.remarks if found.text not in remark]
    doubts = ALL if any("means" in remark.doubts for remark in same) else EVIDENCE
    return replace(run, remarks=(*rest, Remark(found.text, doubts, withholds=unknown)))


def _systematic(parts: Sequence[Run]) -> Systematic | None:
    """The systematic error that all populations have, from what each has estimated."""
    found = [run.systematic for run in parts if run.systematic is not None]
    if len(found) < len(parts):
        return None
    value, sure = (sum(getattr(s, name) for s in found) / len(found) for name in ("value", "sure"))
    return Systematic(value, sure, found[0].text)


def alone(setup: dict[str, Any], j: int) -> dict[str, Any]:
    """The setup of population j, as if it had been run alone."""
    seed = setup["seed"]
    return {k: v for k, v in setup.items() if k != "replicas"} | {
        "seed": None if seed is None else Rng(seed).replica(j).seed
    }


def remarks(runs: Sequence[Run]) -> tuple[Remark, ...]:
    """What the populations have to say, each sentence once, and that they disagree, if they do."""
    said: dict[str, list[int]] = {}
    for j, run in enumerate(runs):
        for remark in run.remarks:
            said.setdefault(NUMBER.sub("#", remark), []).append(j)
    share, found = replicas.shares(runs), []
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
        low, high = (middle, high) if chi_squared_tail(middle, freedom) > beyond else (low, middle)
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
