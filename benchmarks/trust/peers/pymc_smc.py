"""PyMC's `sample_smc` at its defaults: 4 independent runs of 2,000 particles.

log Z is the mean of the four; the error is their spread, with 3 degrees of freedom, as its users have it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.trust.peers.problem import Problem
from benchmarks.trust.peers.pymc_model import build, parameters

N, CHAINS = 2000, 4


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import pymc

    with build(problem):
        trace = pymc.sample_smc(
            draws=N, chains=CHAINS, cores=1, random_seed=seed, progressbar=False, compute_convergence_checks=False
        )
    stages = np.asarray(trace.sample_stats["log_marginal_likelihood"].values.tolist(), dtype=object)
    log_z = np.array([[v for v in np.ravel(chain) if v is not None and not math.isnan(v)][-1] for chain in stages])
    se, freedom = float(log_z.std(ddof=1)) / math.sqrt(CHAINS), CHAINS - 1
    x, means = parameters(problem, trace), {}
    found = problem.functions(problem.values(x.reshape(-1, problem.dim)))
    for name, v in found.items():
        by_chain = v.reshape(CHAINS, -1).mean(1)
        means[name] = [float(by_chain.mean()), float(by_chain.std(ddof=1)) / math.sqrt(CHAINS), freedom]
    return {"log_evidence": float(log_z.mean()), "se": se, "freedom": freedom, "means": means}
