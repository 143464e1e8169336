"""Evidence with its error bar: methods of motes and other packages on targets whose evidence is known.

Every method runs with the same prior and likelihood in float64, one thread, on 40 seeds (nested samplers of other
packages on fewer: they take minutes). Z is the estimate on the linear scale over the exact evidence, mean with its
standard error; bias and sd are those of its logarithm in nats, and `stated` is the mean of the errors that the runs
themselves report, whose 95 % intervals cover the truth in the given share of runs (wanted: 0.90 to 0.99). Points are
counted around the density: each evaluation of one point, with its gradient where the method uses gradients; those of
blackjax are counted from its settings, since its loop is compiled. Seconds are CPU time, compilation left out.

Usage: python benchmarks/evidence.py [--only TARGET] [--python INTERPRETER]; the interpreter has the other packages.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks._evidence_targets import TARGETS

SEEDS = 40
PEERS = {"blackjax": SEEDS, "particles": SEEDS, "dynesty": 2, "nautilus": 1}
"""Runs of each peer."""
LARGEST = {"dynesty": 5, "nautilus": 5}
"""Dimensions above which a peer is not run: one run takes many minutes, or hours."""


def row(title: str, runs: list[dict], truth: float) -> str:
    """One line of the table."""
    log_z = np.array([r["log_z"] for r in runs])
    se = np.array([r["se"] for r in runs])
    error = log_z - truth
    ratio = np.exp(error)
    told = np.isfinite(se)
    covered = f"{np.mean(np.abs(error[told]) < 1.96 * se[told]):.3f}" if told.any() else ""
    if told.any() and not told.all():
        covered += f" ({told.sum()} of {len(se)} give one)"
    spread = ratio.std(ddof=1) / math.sqrt(len(ratio)) if len(ratio) > 1 else math.nan
    stated = f"{se[told].mean():.3f}" if told.any() else ""
    points, seconds = np.mean([r["points"] for r in runs]), np.median([r["seconds"] for r in runs])
    sd = error.std(ddof=1) if len(error) > 1 else math.nan
    return (
        f"| {title} | {len(runs)} | {ratio.mean():.3f} ± {spread:.3f} | {error.mean():+.3f} | {sd:.3f} | {stated} "
        f"| {covered} | {points:,.0f} | {seconds:.2f} |"
    )


def cached(folder: Path, script: str, python: str, key: str, method: str, seeds: int) -> list[dict]:
    """The runs of a method on a target, made in a process of their own where they are not in the folder yet."""
    path = folder / f"{key}-{method}.json"
    if not path.exists():
        command = [python, str(HERE / script), key, method, str(seeds), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{key} {method}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr, flush=True)
            return []
    return json.loads(path.read_text())


def main() -> None:
    from benchmarks._evidence_motes import METHODS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of a target's name")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the other packages")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "runs" / "evidence")
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    head = "| | runs | Z | bias | sd | stated | coverage | points | CPU s |\n|---|---|---|---|---|---|---|---|---|"
    lines = [
        "# Evidence",
        "",
        __doc__ or "",
        f"{date.today()}, motes {version('motes')}, torch {version('torch')}, load {os.getloadavg()[0]:.1f}.",
    ]
    for key, make in TARGETS.items():
        if a.only not in key:
            continue
        target = make()
        lines += ["", f"## {target.title}", "", f"Exact log evidence {target.log_z:.4f}.", "", head]
        for method, most in METHODS.items():
            if target.dim <= most and (
                runs := cached(a.folder, "_evidence_motes.py", sys.executable, key, method, a.seeds)
            ):
                lines.append(row(f"motes {method}", runs, target.log_z))
                print(key, lines[-1], flush=True)
        for peer, seeds in PEERS.items():
            if target.dim > LARGEST.get(peer, 1000):
                continue
            python = sys.executable if peer == "particles" else a.python
            if runs := cached(a.folder, "_evidence_peers.py", python, key, peer, min(seeds, a.seeds)):
                lines.append(row(peer, runs, target.log_z))
                print(key, lines[-1], flush=True)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "evidence.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
