"""What a report says of a run, read off once: plain numbers and numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.core.estimate import student
from motes.core.estimate.quantile import quantile
from motes.core.files.visible import visible
from motes.core.run import Result, Run
from motes.core.views._view import Column, Distinct, View
from motes.errors import MotesError, WrongType
from motes.report.chains import Diagnosis, diagnose

DRAWS = 20_000
"""How many draws of chains histograms are made of."""


@dataclass(frozen=True)
class Summary:
    """The marginal of one number: weighted mean with its standard error, standard deviation, central 95 %."""

    name: str
    mean: float
    se: float
    sd: float
    low: float
    high: float
    column: Column


@dataclass(frozen=True)
class PopulationFacts:
    """One of the populations of a run with replicas."""

    seed: int | None
    n: int
    log_evidence: float
    se: float
    ess: float
    steps: int
    result: Result


@dataclass(frozen=True)
class Facts:
    """A run as the report, the table and the cautions see it. Weights (N,) are normalised; log quantities in nats."""

    name: str
    model: str
    quantity: str
    n: int
    t: int
    seed: int | None
    result: Result
    log_evidence: float
    se: float
    se_reason: str
    se_method: str
    weight: np.ndarray
    ess: float
    families: float
    roots: int
    max_weight: float
    seconds: float
    trace: dict[str, np.ndarray]
    ancestors: list[tuple[int, np.ndarray]] | None
    shown: View
    """The particles, or some draws of chains, a row each."""
    settings: dict[str, Any]
    setup: dict[str, Any]
    versions: dict[str, str]
    summaries: list[Summary] = field(default_factory=list)
    distinct: list[Distinct] = field(default_factory=list)
    """Texts or images with their weights, equal ones merged."""
    hidden: int = 0
    """Numbers of each particle that `summaries` leaves out."""
    remarks: tuple[str, ...] = ()
    """What the model had to say of the run."""
    diagnosis: Diagnosis | None = None
    """Of a run of chains, where ArviZ is installed; `weight` and `shown` are then those of the draws."""
    chains: bool = False
    freedom: float = math.inf
    """On how many degrees of freedom `se` rests."""
    populations: tuple[PopulationFacts, ...] = ()
    """Of a run with replicas: its populations. The trace then holds theirs one after the other."""

    @property
    def interval(self) -> tuple[float, float]:
        """The central 95 % of the log evidence, by Student's t."""
        reach = student.quantile(0.95, self.freedom) * self.se
        return self.log_evidence - reach, self.log_evidence + reach

    @property
    def steps(self) -> int:
        """The number of rows of the trace."""
        return len(self.trace.get("t", ()))

    @property
    def resamplings(self) -> int:
        """How often the population was resampled, as far as the trace tells."""
        return int(np.nansum(self.trace.get("resampled", np.zeros(0))))


def named(runs: Run | list[Run] | tuple[Run, ...] | dict[str, Run]) -> dict[str, Run]:
    """Runs by name: the keys of a dict, else the model's name, numbered where two would be called the same."""
    if isinstance(runs, Run):
        runs = [runs]
    if not isinstance(runs, dict):
        models = [r.setup["model"] for r in runs]
        seen: dict[str, int] = {}
        names = []
        for m in models:
            seen[m] = seen.get(m, 0) + 1
            names.append(f"{m} {seen[m]}" if models.count(m) > 1 else m)
        runs = dict(zip(names, runs, strict=True))
    if not runs:
        raise MotesError("a report needs at least one run")
    for name, run in runs.items():
        if not isinstance(run, Run):
            raise WrongType(f"a report shows motes runs, and {name!r} is a {type(run).__name__}")
    return {visible(str(k)): v for k, v in runs.items()}


def read(run: Run, name: str = "", most: int = 200) -> Facts:
    """The facts of `run`, with marginals of the first `most` numbers of each particle; `most=0` leaves the view out."""
    error = run.standard_error
    weight = np.asarray(run.weight.detach().cpu())
    trace = {k: np.asarray(run.trace[k], dtype=float) for k in run.trace if k != "replica"}
    shown, chains = run.shown.flat(DRAWS), not run.shown.weighted
    if chains:
        weight = np.full(len(shown), 1 / len(shown))
    marginals = bool(most) and not shown.listed
    summaries = summarise(run, shown, weight, most) if marginals else []
    setup = dict(run.setup)
    return Facts(
        name=name or setup["model"],
        model=setup["model"],
        quantity=setup["quantity"],
        n=run.n,
        t=run.particles.t,
        seed=run.seed,
        result=run.result,
        log_evidence=float(run.log_evidence),
        se=float(error.value),
        se_reason=error.reason,
        se_method=error.method,
        weight=weight,
        ess=float(run.ess),
        families=float(run.families),
        roots=len(np.unique(np.asarray(run.particles.root.cpu()))),
        max_weight=1 / run.n if chains else float(weight.max()),
        seconds=float(np.nansum(trace["seconds"])) if "seconds" in trace else math.nan,
        trace=trace,
        ancestors=None if chains else ancestors(run),
        shown=shown,
        settings=setup.get("settings") or {},
        setup=setup,
        versions=setup.get("versions") or {},
        summaries=summaries,
        distinct=shown.distinct(weight) if most else [],
        hidden=0 if shown.listed else max(shown.size() - len(summaries), 0),
        remarks=run.remarks,
        diagnosis=diagnosis(run, max(most, 1)) if chains else None,
        chains=chains,
        freedom=error.freedom,
        populations=tuple(
            PopulationFacts(
                part.seed, part.n, part.log_evidence, part.log_evidence_se, part.ess, part.particles.t, part.result
            )
            for part in run.replicas
        ),
    )


def diagnosis(run: Run, most: int) -> Diagnosis | None:
    """ArviZ's numbers for a run of chains; None where it is not installed."""
    try:
        return diagnose(run, most)
    except ImportError:
        return None


def summarise(run: Run, shown: View, weight: np.ndarray, most: int) -> list[Summary]:
    """The weighted marginal of the first `most` numbers of each particle."""
    errors: list[float] = []
    for k, (_, leaf) in enumerate(shown.leaves()):
        if len(errors) >= most:
            break
        columns = min(leaf[0].numel(), most - len(errors)) if len(leaf) else 0

        def part(flat: Any, k: int = k, columns: int = columns) -> Tensor:
            found = type(shown)(flat).leaves()[k][1]
            return found.reshape(len(found), -1)[:, :columns]

        try:
            errors += run.mean(part).se.reshape(-1).tolist()
        except MotesError:  # not finite: the mean has no error bar either, and `cautions` says so
            errors += [math.nan] * columns
    out = []
    for column, se in zip(shown.columns(most), errors, strict=True):
        v, w = column.values, weight
        good = np.isfinite(v) & (w > 0)
        v, w = v[good], w[good]
        if not len(v):
            out.append(Summary(column.name, math.nan, math.nan, math.nan, math.nan, math.nan, column))
            continue
        w = w / w.sum()
        mean = float(w @ v)
        low, high = quantile(v, w, np.array([0.025, 0.975]))
        sd = math.sqrt(max(float(w @ (v - mean) ** 2), 0.0))
        out.append(Summary(column.name, mean, se, sd, float(low), float(high), column))
    return out


def ancestors(run: Run) -> list[tuple[int, np.ndarray]] | None:
    """The resamplings in order: the time after, and the parent (N,) of every slot; None if no record was kept."""
    g = run.genealogy
    entries = [*g.record, *([] if g.pending is None else [g.pending])]
    if not entries and run.particles.t > 0:
        return None
    itself = torch.arange(run.n)
    dated = zip(g.times[1:], entries, strict=True)
    return [(t, e.cpu().numpy()) for t, e in dated if not torch.equal(e.long(), itself)]
