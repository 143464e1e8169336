"""Tempering on targets of known evidence: the mean of Z_hat / Z over seeds, and coverage of the stated intervals."""

import math

import numpy as np
import pytest
from benchmarks._evidence_motes import density
from benchmarks._evidence_targets import TARGETS

import motes

Z = 4.9  # two-sided level 1e-6


def few(nominal: float, seeds: int) -> int:
    """The most intervals of `seeds` that may cover and yet be too few at level 1e-6."""
    below = 0.0
    for k in range(seeds + 1):
        below += math.comb(seeds, k) * nominal**k * (1 - nominal) ** (seeds - k)
        if below > 1e-6:
            return k - 1
    return seeds


def check(name: str, n: int, seeds: int) -> None:
    """Catches a mean of Z_hat / Z that is off by 5 of its standard errors, and standard errors that are far too small.

    Adaptation biases by O(1/N), for which a squared standard deviation is allowed.
    """
    target = TARGETS[name]()
    law = density(target)
    runs = [motes.sample(motes.Tempering(law), n, seed=s, progress=False) for s in range(seeds)]
    error, se = np.array([r.log_evidence - target.log_z for r in runs]), np.array([r.log_evidence_se for r in runs])
    ratio = np.exp(error)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(seeds) + ratio.var(ddof=1)
    covered = (np.abs(error) < 1.96 * se).sum()
    assert covered > few(0.95, seeds), (covered, error.std(), se.mean())
    assert (np.abs(error) < 1.96 * 0.2 * se).sum() <= few(0.95, seeds)  # the broken twin
    counted = sum(float(r.trace["evaluations"].sum()) for r in runs) * n
    assert law.gradients == pytest.approx(counted, rel=1e-3)
    assert law.values < 0.02 * law.gradients  # at the end a run looks outwards, for a posterior that is improper


def test_evidence_of_ten_dimensions_and_its_coverage():
    check("gaussian-10", 400, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["many-well-8", "gaussian-10", "shell-5", "regression-20", "gaussian-30"])
def test_evidence_of_more_targets_and_its_coverage_over_40_seeds(name):
    check(name, 1000, 40)
