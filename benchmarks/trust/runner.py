"""One row of the shelf: its runs one after the other, each written down as soon as it has ended."""

from __future__ import annotations

import math
import subprocess
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from benchmarks.trust import record
from benchmarks.trust.target import Target

from motes.core import Estimate, Remark, Run, StandardError

SEEDS, FEWER = 40, 16
"""Runs of a row, and of one that would take more than `LONG` seconds of CPU."""
LONG = 600.0
STOP = 900.0
"""Seconds of CPU after which a single run is stopped, which counts as an error."""
ROOT = Path(__file__).parents[2]


@cache
def source(domain: str) -> str:
    """The last commit of what a domain's runs are made of, with a + where that differs; "?" outside of a repository."""
    parts = [f"src/motes/{name}" for name in ("core", "kernels", "laws", "rng", domain)]
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "log", "-1", "--format=%h", "--", *parts], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "--", *parts], capture_output=True, text=True)
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "") if commit.returncode == 0 else "?"


def one(target: Target, sampler: str, n: int, seed: int, stop: float = STOP) -> dict[str, Any]:
    """One run and all that it says, as `record` describes it; an error is kept, not raised."""
    began, late = time.process_time(), [False]

    def watch(_: object) -> bool:
        late[0] = time.process_time() - began > stop
        return late[0]

    def work() -> dict[str, Any]:
        job = target.model(sampler, n, seed)
        run = job.run(seed, watch)
        return said(run, target) | {"evaluations": job.evaluations(run)}

    return {"seed": seed} | guarded(work) | ({"error": f"stopped after {stop:.0f} s"} if late[0] else {})


def guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or the text of the error that it raised, and the seconds of CPU."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = work()
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:600]}
    return found | {"cpu": time.process_time() - began}


def said(run: Run, target: Target) -> dict[str, Any]:
    """The estimates of a run with their errors, its remarks and its result."""
    error = run.standard_error
    found: dict[str, Any] = {"result": run.result.value, "log_evidence": run.log_evidence, "se": error.value}
    found |= _freedom(error) | ({"reason": error.reason} if error.reason else {})
    means, reasons = {}, {}
    for name, f in target.functions.items():
        estimate = run.mean(f)
        means[name] = [float(estimate.value), float(estimate.se), *_freedom(estimate).values()]
        if estimate.reason:
            reasons[name] = estimate.reason
    found |= {"means": means} | ({"reasons": reasons} if reasons else {})
    if target.modes:
        found["met"] = {name: int((run.values(f) > 0.5).sum()) for name, f in target.modes.items()}
    if run.remarks:
        found["remarks"] = [[str(r), list(Remark.of(r).doubts)] for r in run.remarks]
    return found | {"ess": run.ess if run.shown.weighted else math.nan}


def _freedom(estimate: StandardError | Estimate) -> dict[str, float]:
    """Degrees of freedom of an estimate's error, where there are so few that a normal law is not near enough."""
    freedom = float(estimate.freedom)
    return {"freedom": freedom} if math.isfinite(freedom) else {}


def row(
    target: Target,
    sampler: str,
    n: int,
    seeds: int = SEEDS,
    *,
    attempt: Callable[[int], dict[str, Any]] | None = None,
    folder: Path = record.RESULTS,
    until: float = math.inf,
    budget: float = math.inf,
    stop: float = STOP,
    fresh: bool = False,
    stale: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Run what is missing of a row and write it down after each run.

    A row that was begun with other sources begins anew where it is not complete. After 4 runs its cost is known: 16
    runs where 40 would take more than ten minutes.

    Args:
        attempt: from a seed to what is kept of a run, where it is no run of motes.
        until: `time.monotonic()` after which no run begins.
        budget: seconds of CPU of runs made now after which none begins.
        stop: seconds of CPU after which a run is stopped.
        fresh: begin anew whatever there is.
        stale: begin a complete row anew too, where it is of other sources.
        tell: called with a line after each run.
    """
    torch.set_num_threads(1)
    file = record.path(target.name, sampler, n, folder)
    now, old = source(target.domain), None if fresh else record.read(file)
    runs: list[dict[str, Any]] = [] if old is None else old["runs"]
    found = {"target": target.name, "sampler": sampler, "n": n, "costly": bool(old and old["costly"]), "runs": runs}
    if runs and attempt is None and (stale or len(runs) < _wanted(found, seeds)) and runs[0]["source"] != now:
        runs.clear()
    spent = 0.0
    while len(runs) < _wanted(found, seeds) and time.monotonic() < until and spent < budget:
        seed = len(runs)
        kept = one(target, sampler, n, seed, stop) if attempt is None else attempt(seed)
        runs.append({"seed": seed, "source": now} | record.tidy(kept))
        spent += kept["cpu"]
        if len(runs) == 4:
            found["costly"] = sum(r["cpu"] for r in runs) / 4 * SEEDS > LONG
        record.write(file, found)
        tell(line(target, sampler, n, runs[-1]))
    return found


def _wanted(found: dict[str, Any], seeds: int) -> int:
    return min(seeds, FEWER) if found["costly"] else seeds


def line(target: Target, sampler: str, n: int, run: dict[str, Any]) -> str:
    """One run on a line, for whoever watches."""
    start = f"{target.name} {sampler} {n} seed {run['seed']} {run['cpu']:.1f} s: "
    if "error" in run:
        return start + run["error"].splitlines()[0][:160]
    parts = [f"log Z {_shown(run['log_evidence'], run['se'])}"]
    parts += [f"{name} {_shown(*v[:2])}" for name, v in run["means"].items()]
    return start + ", ".join(parts) + (f" [{len(run['remarks'])} remarks]" if "remarks" in run else "")


def _shown(value: Any, se: Any) -> str:
    return f"{record.number(value):.4g} ± {record.number(se):.2g}"
