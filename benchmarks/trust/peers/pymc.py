"""PyMC, NUTS at its defaults: 4 chains, 1,000 draws each after 1,000 of tuning; errors of means by ArviZ.

What PyMC warns of (R-hat above 1.01, few effective draws, divergences) counts as a remark that doubts the means.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks.trust.peers.chains import summarised
from benchmarks.trust.peers.problem import Problem
from benchmarks.trust.peers.pymc_model import build, parameters

N = 4


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import pymc

    with build(problem):
        trace = pymc.sample(
            chains=N, cores=1, random_seed=seed, progressbar=False, compute_convergence_checks=False, init="auto"
        )
    diverged = int(trace.sample_stats["diverging"].sum())
    return summarised(problem, parameters(problem, trace), diverged) | {"log_evidence": math.nan, "se": math.nan}
