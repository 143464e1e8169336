"""nautilus, importance nested sampling at its defaults (2,000 live points); it states no error of log Z."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.trust.peers.problem import Problem, weighted

N, MOST = 2000, 1_000_000
"""Live points, and calls after which it is stopped."""


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import nautilus

    sampler = nautilus.Sampler(
        problem.from_cube, problem.log_likelihood, n_dim=problem.dim, vectorized=True, seed=seed, pass_dict=False
    )
    if not sampler.run(verbose=False, n_like_max=MOST):
        raise RuntimeError(f"not converged after {MOST} calls")
    points, log_weight, _ = sampler.posterior()
    means = weighted(problem.functions(problem.values(points)), log_weight)
    return {"log_evidence": float(sampler.log_z), "se": math.nan, "reason": "it states none", "means": means}
