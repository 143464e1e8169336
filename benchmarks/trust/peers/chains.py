"""What a package of chains states of its means: the spread over the square root of ESS, and its warnings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.trust.peers.problem import Problem

R_HAT, FEW = 1.01, 400


def summarised(problem: Problem, x: np.ndarray, diverged: int) -> dict[str, Any]:
    """Means with errors from draws (chains, draws, dim), by ArviZ's `mcse`, `rhat` and `ess`, and what they warn of."""
    from arviz_stats.base import array_stats

    chains, draws = x.shape[:2]
    found = problem.functions(problem.values(x.reshape(chains * draws, -1)))
    means, warnings = {}, [f"{diverged} divergences"] if diverged else []
    for name, v in found.items():
        v = v.reshape(chains, draws)
        same = v.min() == v.max()
        means[name] = [float(v.mean()), math.nan if same else float(array_stats.mcse(v, method="mean"))]
        if not same and float(array_stats.rhat(v)) > R_HAT:
            warnings.append(f"R-hat of {name}")
        if not same and float(array_stats.ess(v)) < FEW:
            warnings.append(f"few effective draws of {name}")
    return {"means": means} | ({"remarks": [["; ".join(warnings), ["means"]]]} if warnings else {})
