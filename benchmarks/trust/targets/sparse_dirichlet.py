"""A sparse Dirichlet: 20 probabilities with concentration .1, of which three were seen 5, 2 and 1 times.

Conjugate: the posterior is Dirichlet(.1 + counts), the evidence a ratio of gamma functions (of the sequence of draws).
Most probabilities are below 1e-3, and their logarithms range over hundreds.
"""

from __future__ import annotations

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.special import gammaln
from torch.distributions import Categorical, Dirichlet

import motes
from motes.density import DataAnnealing

K, SPARSE, COUNTS = 20, 0.1, (5, 2, 1)


def truth() -> Truth:
    total = K * SPARSE
    log_z = gammaln(total) - gammaln(total + sum(COUNTS)) + sum(gammaln(SPARSE + c) - gammaln(SPARSE) for c in COUNTS)
    means = {f"p{i}": (SPARSE + c) / (total + sum(COUNTS)) for i, c in enumerate((*COUNTS, 0))}
    return Truth(float(log_z), means)


def prior() -> dict[str, Dirichlet]:
    return {"p": Dirichlet(torch.full((K,), SPARSE, dtype=torch.float64))}


def density() -> motes.Density:
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    return motes.Density(lambda v: v["p"][:, :3].log() @ counts, prior(), vectorised=True)


def one_by_one() -> DataAnnealing:
    seen = torch.tensor([0, 1, 0, 2, 0, 0, 1, 0])
    return DataAnnealing(
        lambda v, y: Categorical(v["p"][:, None]).log_prob(y.expand(len(v["p"]), -1)), prior(), seen, vectorised=True
    )


TARGETS = [
    Target(
        "sparse-dirichlet",
        "Sparse Dirichlet, concentration .1, K = 20, counts 5, 2, 1",
        truth,
        {f"p{i}": f"p[{i}]" for i in range(4)},
        on(density, data=one_by_one),
    )
]
