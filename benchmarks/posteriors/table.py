"""Samplers of posteriors side by side: `python -m benchmarks.posteriors.table [--peers ...] [--posteriors ...]`.

Each run is a cold process on the same two cores, timed from its start to its end with imports, compilation and
warm-up; the runners take turns, and the whole round is repeated with other seeds. Effective sample sizes are the worst
coordinate's, the smaller of bulk and tail, by ArviZ for all runners alike, in unconstrained coordinates. Draws whose
R-hat is above 1.05, or with a first or second moment more than 0.25 standard deviations from posteriordb's, count as
none. Every runner makes the same number of draws (emcee: of steps) and evaluates the same
log-density in float64.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np
from benchmarks.posteriors.drawn import PEERS
from benchmarks.posteriors.run import timed
from tests.posteriors import MORE, REFERENCED

RESULTS = Path(__file__).parents[1] / "results" / "posteriors.md"
DISTRIBUTIONS = ("motes", "torch", "numpyro", "blackjax", "nutpie", "emcee", "jax", "arviz-stats")


def measure(a: argparse.Namespace) -> None:
    """Run what is not yet in the folder, round after round, all runners in turn within a round."""
    for repeat in range(a.repeats):
        for name in a.posteriors:
            order = a.peers[repeat % len(a.peers) :] + a.peers[: repeat % len(a.peers)]
            for peer in order:
                out = a.folder / f"{peer}-{name}-{repeat}.npz"
                if a.again or not Path(f"{out}.json").exists():
                    found = timed(a.python.get(peer, sys.executable), peer, name, repeat, out, a.more, a.limit)
                    print(json.dumps(found), flush=True)


def collect(a: argparse.Namespace) -> list[dict]:
    """Each run with its score, which is kept beside it."""
    from benchmarks.posteriors.score import score

    runs = []
    for path in sorted(a.folder.glob("*.npz.json")):
        found = json.loads(path.read_text())
        if found["peer"] not in a.peers or found["posterior"] not in a.posteriors:
            continue
        if "failed" not in found and "ess" not in found:
            with np.load(path.with_suffix("")) as file:
                s = score(found["posterior"], file["draws"])
                found |= {"ess": s.ess, "bulk": s.bulk, "tail": s.tail, "rhat": s.rhat, "error": s.error}
                found |= {"dead": s.dead, "gradients": float(file["gradients"]), "draws": file["draws"].shape[:2]}
            path.write_text(json.dumps(found, indent=1))
        runs.append(found)
    return runs


def rate(found: dict, clock: str) -> float:
    return found.get("ess", 0.0) / found[clock]


def table(a: argparse.Namespace, runs: list[dict], clock: str) -> list[str]:
    """Medians over the repeats of the worst coordinate's effective draws a second, and their geometric means.

    Zero is written where the draws do not count, or where the process was ended at the limit. The last column is the
    first runner's rate over that of the best other one.
    """
    others = a.peers[1:]
    lines = [
        "| posterior | " + " | ".join(a.peers) + f" | {a.peers[0]} / best other |",
        "|---|" + "---|" * (len(a.peers) + 1),
    ]
    cells: dict[str, dict[str, float]] = {peer: {} for peer in a.peers}
    ratios = []
    for name in a.posteriors:
        row = []
        for peer in a.peers:
            found = [rate(r, clock) for r in runs if r["peer"] == peer and r["posterior"] == name]
            row.append(f"{median(found):.1f}" if found else "")
            if found:
                cells[peer][name] = median(found)
        best = max((cells[peer].get(name, 0.0) for peer in others), default=0.0)
        own = cells[a.peers[0]].get(name, 0.0)
        if best > 0 and own > 0:
            ratios.append(own / best)
        lines.append(f"| {name} | " + " | ".join(row) + f" | {own / best:.2f} |" if best > 0 else " |")
    means, against = [], []
    for peer in a.peers:
        values = [v for v in cells[peer].values() if v > 0]
        means.append(f"**{_mean(values):.1f}** ({len(values)})" if values else "")
        common = [cells[a.peers[0]][n] / v for n, v in cells[peer].items() if v > 0 and cells[a.peers[0]].get(n, 0) > 0]
        against.append(f"{_mean(common):.2f}" if common and peer != a.peers[0] else "")
    lines.append("| **geometric mean** (over how many) | " + " | ".join(means) + f" | **{_mean(ratios):.2f}** |")
    return [*lines, f"| {a.peers[0]} over it, where both count | " + " | ".join(against) + " | |"]


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def each(runs: list[dict]) -> list[str]:
    lines = [
        "| posterior | runner | seed | wall s | CPU s | gradients | bulk | tail | R-hat | error, sd | load | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(runs, key=lambda r: (r["posterior"], r["peer"], r["seed"])):
        head = f"| {r['posterior']} | {r['peer']} | {r['seed']} | {r['wall']:.1f} | {r['cpu']:.1f} "
        if "failed" in r:
            said = r["failed"].strip().splitlines()[-1][:80].replace("|", "/")
            lines.append(f"{head}| | | | | | {r['load']:.1f} | {said} |")
        else:
            lines.append(
                f"{head}| {r['gradients']:.0f} | {r['bulk']:.0f} | {r['tail']:.0f} | {r['rhat']:.3f} "
                f"| {r['error']:.2f} | {r['load']:.1f} | {r['dead']} |"
            )
    return lines


def versions() -> str:
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--posteriors", nargs="+", default=[*REFERENCED, *MORE])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a process is ended")
    parser.add_argument("--folder", type=Path, default=Path("runs/posteriors"), help="for draws and times")
    parser.add_argument("--python", nargs="*", default=[], help="PEER=INTERPRETER, or INTERPRETER for all peers")
    parser.add_argument("--again", action="store_true", help="run what is already in the folder again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    a, a.more = parser.parse_known_args()
    given = dict(p.split("=", 1) if "=" in p else ("", p) for p in a.python)
    a.python = {peer: given.get(peer, given.get("")) or sys.executable for peer in a.peers if peer != "motes"}
    a.folder = a.folder.resolve()
    a.folder.mkdir(parents=True, exist_ok=True)
    measure(a)
    runs = collect(a)
    cores = min(2, len(os.sched_getaffinity(0)))
    text = [
        "# Posteriors",
        "",
        __doc__ or "",
        f"{date.today()}; {versions()}; {cores} cores of {machine()}; medians of up to {a.repeats} repeats; limit "
        f"{a.limit:.0f} s a process. Options passed on to the runners: {' '.join(a.more) or 'none'}.",
        *("", "## Effective draws of the worst coordinate a wall second", "", *table(a, runs, "wall")),
        *("", "## The same a CPU second", "", *table(a, runs, "cpu")),
        *("", "## Each run", "", *each(runs)),
        "",
    ]
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text("\n".join(text))
    print(a.out)


if __name__ == "__main__":
    main()
