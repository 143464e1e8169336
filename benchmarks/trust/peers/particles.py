"""particles: waste-free adaptive tempering with random-walk Metropolis, as its authors advise: 50 chains of 20 states.

Its errors are its own, from the chains: `Var_logLt` and `var_wf`, asymptotic variances, over N. It draws from NumPy's
global generator.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.trust.peers.problem import LOWEST, Problem

CHAINS, LENGTH = 50, 20
N = CHAINS * LENGTH


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import particles as package
    from particles import distributions as laws
    from particles import smc_samplers

    def rows(z: np.ndarray) -> np.ndarray:
        return z.reshape(len(z), problem.free)

    class Prior(laws.ProbDist):
        dim = problem.free

        def rvs(self, size: int | None = None) -> np.ndarray:
            drawn = problem.draw(int(np.random.randint(2**31)), size or 1)  # noqa: NPY002
            return drawn[:, 0] if problem.free == 1 else drawn

        def logpdf(self, x: np.ndarray) -> np.ndarray:
            return np.maximum(problem.parts(rows(x))["log_prior"], LOWEST)

    class Model(smc_samplers.StaticModel):
        def loglik(self, theta: np.ndarray, t: int | None = None) -> np.ndarray:
            return np.maximum(problem.parts(rows(theta["z"]))["log_likelihood"], LOWEST)

    np.random.seed(seed)  # noqa: NPY002
    model = Model(data=None, prior=laws.StructDist({"z": Prior()}))
    fk = smc_samplers.AdaptiveTempering(model=model, len_chain=LENGTH, wastefree=True)
    smc = package.SMC(fk=fk, N=CHAINS, verbose=False, collect=[smc_samplers.Var_logLt()])
    smc.run()
    means = {}
    for name, values in problem.of_free(rows(smc.X.theta["z"])).items():
        asymptotic = float(smc_samplers.var_wf(smc, lambda _, v=values: v))
        means[name] = [float(np.average(values, weights=smc.W)), math.sqrt(asymptotic / N)]
    se = math.sqrt(float(smc.summaries.var_logLt[-1]) / N)
    return {"log_evidence": float(smc.summaries.logLts[-1]), "se": se, "means": means}
