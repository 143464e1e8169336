"""UltraNest, reactive nested sampling at its defaults (400 live points), with its own error of log Z."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from benchmarks.trust.peers.problem import Problem, weighted

N, MOST = 400, 2_000_000
"""Live points, and calls after which it is stopped."""


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import ultranest

    logging.getLogger("ultranest").setLevel(logging.ERROR)
    np.random.seed(seed)  # noqa: NPY002
    names = [f"p{i}" for i in range(problem.dim)]
    sampler = ultranest.ReactiveNestedSampler(names, problem.log_likelihood, problem.from_cube, vectorized=True)
    found = sampler.run(show_status=False, viz_callback=False, max_ncalls=MOST)
    if problem.points >= MOST:
        raise RuntimeError(f"not converged after {MOST} calls")
    w = found["weighted_samples"]
    means = weighted(problem.functions(problem.values(w["points"])), np.log(w["weights"] + 1e-300))
    return {"log_evidence": float(found["logz"]), "se": float(found["logzerr"]), "means": means}
