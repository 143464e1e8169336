"""Run the benchmarks one after another: `python -m benchmarks [NAME ...]`; each writes benchmarks/results/NAME.md.

Each script runs in a process of its own with one thread, so that none sees another's caches or settings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = {p.stem: p for p in sorted(HERE.glob("*.py")) if not p.stem.startswith("_")}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all of them; 1 if one failed, 2 if there is none of that name."""
    unknown = [name for name in names if name not in SCRIPTS]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(SCRIPTS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or SCRIPTS:
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, str(SCRIPTS[name])], env={**os.environ, **ONE_THREAD})
        print(f"== {name}: {time.perf_counter() - start:.0f} s, exit code {done.returncode}\n", flush=True)
        if done.returncode:
            failed.append(name)
    for path in sorted((HERE / "results").glob("*.md")):
        print(f"results: {path.relative_to(HERE.parent)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
