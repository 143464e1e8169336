"""Tempering on targets with a known evidence: 40 seeds, the mean of Z_hat / Z, and coverage of the stated intervals."""

import math

import numpy as np
import pytest
from benchmarks._evidence_motes import density
from benchmarks._evidence_targets import TARGETS

import motes

Z, SEEDS = 4.9, 40  # two-sided level 1e-6


def few(nominal: float) -> int:
    """The most intervals of `SEEDS` that may cover and yet be too few at level 1e-6."""
    below = 0.0
    for k in range(SEEDS + 1):
        below += math.comb(SEEDS, k) * nominal**k * (1 - nominal) ** (SEEDS - k)
        if below > 1e-6:
            return k - 1
    return SEEDS


def check(name: str) -> None:
    """Catches a mean of Z_hat / Z that is off by 5 of its standard errors, and standard errors that are far too small.

    Adaptation biases by O(1/N), for which a squared standard deviation is allowed.
    """
    target = TARGETS[name]()
    law = density(target)
    runs = [motes.sample(motes.Tempering(law), 1000, seed=s, progress=False) for s in range(SEEDS)]
    error, se = np.array([r.log_evidence - target.log_z for r in runs]), np.array([r.log_evidence_se for r in runs])
    ratio = np.exp(error)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(SEEDS) + ratio.var(ddof=1)
    covered = (np.abs(error) < 1.96 * se).sum()
    assert covered > few(0.95), (covered, error.std(), se.mean())
    assert (np.abs(error) < 1.96 * 0.2 * se).sum() <= few(0.95)  # the broken twin
    counted = sum(float(r.trace["evaluations"].sum()) for r in runs) * 1000
    assert law.gradients == pytest.approx(counted, rel=1e-3)
    assert law.values < 0.02 * law.gradients  # at the end a run looks outwards, for a posterior that is improper


@pytest.mark.parametrize("name", ["many-well-8", "gaussian-10"])
def test_evidence_of_two_targets_and_its_coverage_over_40_seeds(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shell-5", "regression-20", "gaussian-30"])
def test_evidence_of_more_targets_and_its_coverage_over_40_seeds(name):
    check(name)
