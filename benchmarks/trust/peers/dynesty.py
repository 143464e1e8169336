"""dynesty, static nested sampling at its defaults (500 live points), with its own error of log Z."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.trust.peers.problem import Problem, weighted

N, MOST = 500, 2_000_000
"""Live points, and calls after which it is stopped."""


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import dynesty

    sampler = dynesty.NestedSampler(
        problem.log_likelihood, problem.from_cube, problem.dim, nlive=N, rstate=np.random.default_rng(seed)
    )
    sampler.run_nested(print_progress=False, maxcall=MOST)
    if problem.points >= MOST:
        raise RuntimeError(f"not converged after {MOST} calls")
    r = sampler.results
    means = weighted(problem.functions(problem.values(r.samples)), r.logwt)
    return {"log_evidence": float(r.logz[-1]), "se": float(r.logzerr[-1]), "means": means}
