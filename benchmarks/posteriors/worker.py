"""One runner on one posterior in a process of its own: `python -m benchmarks.posteriors.worker PEER POSTERIOR ...`."""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks.posteriors.drawn import PEERS, Job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("posterior")
    parser.add_argument("--out", required=True)
    for field, default in (("seed", 0), ("draws", 4000), ("warmup", 1000), ("chains", 0)):
        parser.add_argument(f"--{field}", type=int, default=default)
    a = parser.parse_args()
    job = Job(a.seed, a.draws, a.warmup, a.chains)
    drawn = import_module(f"benchmarks.posteriors.{a.peer}").sample(a.posterior, job)

    import numpy as np

    draws, gradients = np.asarray(drawn.draws), drawn.gradients
    if draws.ndim != 3 or not np.isfinite(draws).all():
        raise SystemExit(f"{a.peer} handed back draws of shape {draws.shape}, all finite: {np.isfinite(draws).all()}")
    np.savez(a.out, draws=draws, gradients=np.nan if gradients is None else gradients)


if __name__ == "__main__":
    main()
