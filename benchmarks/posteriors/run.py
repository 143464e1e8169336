"""One cold process, timed from outside: `python -m benchmarks.posteriors.run PEER POSTERIOR --seed S --out draws.npz`.

Wall and CPU seconds count from the start of the process to its end: imports, compilation, warm-up, draws and the
writing of the file. The process and its threads are bound to the same two cores whoever runs. Beside OUT, which holds
"draws" (chains, draws, d) in unconstrained coordinates and "gradients" (NaN where unknown), OUT.json holds the times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORES = 2


def timed(python: str, peer: str, posterior: str, seed: int, out: Path, more: list[str], limit: float) -> dict:
    """Run it and write OUT and OUT.json; the latter's contents, with "failed" where there are no draws."""
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    own = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}  # each runner has its own default
    command = [python, "-m", "benchmarks.posteriors.worker", peer, posterior, "--seed", str(seed), "--out", str(out)]
    load = os.getloadavg()[0]
    began, before = time.perf_counter(), os.times()
    process = subprocess.Popen(
        [*command, *more],
        cwd=ROOT,
        env=own,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        said = process.communicate(timeout=limit)[1]
        failed = "" if process.returncode == 0 else f"exit code {process.returncode}: {said[-2000:]}"
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        failed = f"more than {limit:.0f} s"
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    found = {"peer": peer, "posterior": posterior, "seed": seed, "wall": wall, "cpu": cpu, "load": load}
    if failed:
        found["failed"] = failed
    Path(f"{out}.json").write_text(json.dumps(found, indent=1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("posterior")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the peer")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which it is ended")
    a, more = parser.parse_known_args()
    found = timed(a.python, a.peer, a.posterior, a.seed, a.out, more, a.limit)
    print(json.dumps(found))
    return 1 if "failed" in found else 0


if __name__ == "__main__":
    sys.exit(main())
