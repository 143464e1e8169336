"""Gaussian beta-ensembles: repelling points whose law has an exact sampler (eigenvalues of a tridiagonal matrix).

Density prod |x_i - x_j|^beta exp(-sum x^2 / 2). Normaliser: Mehta's integral. Sampler: Dumitriu & Edelman (2002),
Matrix models for beta ensembles, Journal of Mathematical Physics 43(11).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import motes

N, Z = 5, 4.9  # points; two-sided level 1e-6
PAIR = torch.triu_indices(N, N, 1)


def ensemble(beta: float) -> motes.Density:
    """The ensemble from the start N(0, 2.5^2 I), which is divided out."""
    start = Normal(torch.zeros(N, dtype=torch.float64), 2.5)

    def log_likelihood(x: Tensor) -> Tensor:
        gap = (x[:, PAIR[0]] - x[:, PAIR[1]]).abs()
        return beta * gap.log().sum(1) - 0.5 * x.square().sum(1) - start.log_prob(x).sum(1)

    return motes.Density(log_likelihood, start, vectorised=True, compile=False)


def mehta(beta: float) -> float:
    terms = (math.lgamma(1 + 0.5 * beta * j) - math.lgamma(1 + 0.5 * beta) for j in range(1, N + 1))
    return 0.5 * N * math.log(2 * math.pi) + sum(terms)


def exact(beta: float, n: int) -> np.ndarray:
    """(n, N) ordered eigenvalues of Dumitriu and Edelman's matrix."""
    rng = np.random.default_rng(7)
    matrix = np.zeros((n, N, N))
    for i in range(N):
        matrix[:, i, i] = rng.normal(size=n) * math.sqrt(2)
        if i < N - 1:
            side = np.sqrt(rng.chisquare(beta * (N - 1 - i), n))
            matrix[:, i, i + 1] = matrix[:, i + 1, i] = side
    return np.linalg.eigvalsh(matrix / math.sqrt(2))


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")  # orders of the points are modes
@pytest.mark.parametrize(("kernel", "beta"), [("chees", 2.0), ("chees", 4.0), ("slice", 1.0), ("nuts", 2.0)])
def test_chains_have_the_law_of_the_tridiagonal_sampler(kernel: str, beta: float) -> None:
    """The largest, the middle and the sum of squares; an error of a tenth of a standard deviation would be caught."""
    run = motes.sample(motes.Chains(ensemble(beta), kernel=kernel, draws=60, warmup=60), 64, seed=0, progress=False)
    truth = np.sort(exact(beta, 40_000), axis=1)
    for f, values in (
        (lambda x: x.max(1).values, truth[:, -1]),
        (lambda x: x.sort(1).values[:, N // 2].square(), truth[:, N // 2] ** 2),
        (lambda x: x.square().sum(1), np.square(truth).sum(1)),
    ):
        mean = run.mean(f)
        error = math.hypot(float(mean.se), values.std() / math.sqrt(len(values)))
        assert abs(float(mean) - values.mean()) < Z * error and error < 0.1 * values.std()
    moment = run.mean(lambda x: x.square().sum(1))
    assert abs(float(moment) - (N + beta * N * (N - 1) / 2)) < Z * float(moment.se)


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_another_strength_of_repulsion_is_found_out() -> None:
    run = motes.sample(motes.Chains(ensemble(2.0), draws=60, warmup=60), 64, seed=0, progress=False)
    largest, truth = run.mean(lambda x: x.max(1).values), np.sort(exact(1.5, 40_000), axis=1)[:, -1]
    assert abs(float(largest) - truth.mean()) > Z * math.hypot(float(largest.se), truth.std() / 200)


@pytest.mark.parametrize("beta", [2.0])
def test_the_evidence_is_mehta_s_integral(beta: float) -> None:
    run = motes.sample(motes.Tempering(ensemble(beta)), 400, seed=0, progress=False)
    assert abs(run.log_evidence - mehta(beta)) < Z * run.log_evidence_se < 0.6
