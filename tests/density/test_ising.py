"""The two-dimensional Ising torus against Kaufman's partition function, and Potts rings against a transfer matrix."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from benchmarks.trust.targets.ising import CRITICAL, bonds, kaufman, torus

import motes
from motes.laws import Discrete

Z = 4.9  # two-sided level 1e-6


def test_kaufman_is_the_enumeration_and_the_published_values() -> None:
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=16)), dtype=torch.float64)
    for beta in (0.2, CRITICAL, 0.6):
        exact = float(torch.logsumexp(beta * bonds(states, 4), 0))
        assert kaufman(4, beta) == pytest.approx(exact, abs=1e-9)
    assert kaufman(8, 0.28) == pytest.approx(49.7401046196, abs=1e-9)
    assert kaufman(8, CRITICAL) == pytest.approx(60.1417807891, abs=1e-9)


@pytest.mark.parametrize(
    ("kernel", "size", "beta", "n"),
    [
        ("gibbs-with-gradients", 4, CRITICAL, 500),
        ("discrete-langevin", 4, 0.3, 500),
        ("flip", 4, 0.6, 500),
        ("gibbs-with-gradients", 8, 0.28, 300),
        ("flip", 8, CRITICAL, 500),
    ],
)
def test_the_partition_function_and_the_energy(kernel: str, size: int, beta: float, n: int) -> None:
    """Within 4.9 of the run's own standard errors, which are below 0.25 nats and 4 % of the number of bonds."""
    run = motes.sample(motes.Tempering(torus(size, beta), kernel=kernel), n, seed=0, progress=False)
    error = run.log_evidence + size * size * math.log(2) - kaufman(size, beta)
    assert abs(error) < Z * run.log_evidence_se and run.log_evidence_se < 0.25
    energy = run.mean(lambda x: bonds(x, size))
    exact = (kaufman(size, beta + 1e-5) - kaufman(size, beta - 1e-5)) / 2e-5
    assert abs(float(energy) - exact) < Z * float(energy.se) < Z * 0.04 * 2 * size * size


def test_another_temperature_is_told_apart() -> None:
    run = motes.sample(motes.Tempering(torus(4, CRITICAL), kernel="flip"), 500, seed=0, progress=False)
    assert abs(run.log_evidence + 16 * math.log(2) - kaufman(4, 0.5)) > Z * run.log_evidence_se


@pytest.mark.parametrize("kernel", ["gibbs-with-gradients", "discrete-langevin", "flip"])
def test_a_ring_of_potts_labels(kernel: str) -> None:
    """Z = (e^b + q - 1)^L + (q - 1) (e^b - 1)^L for L labels of q kinds on a ring."""
    length, kinds, beta = 10, 4, 1.2
    ring = Discrete(lambda h: beta * (h * h.roll(1, 1)).sum((1, 2)), length, levels=kinds, one_hot=True)
    run = motes.sample(motes.Tempering(ring, kernel=kernel), 500, seed=1, progress=False)
    base = math.exp(beta)
    exact = math.log((base + kinds - 1) ** length + (kinds - 1) * (base - 1) ** length)
    assert abs(run.log_evidence + length * math.log(kinds) - exact) < Z * run.log_evidence_se < Z * 0.25


def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path) -> None:
    whole = motes.sample(motes.Tempering(torus(4, 0.3)), 100, seed=5, progress=False)
    path = tmp_path / "run.motes"
    motes.sample(motes.Tempering(torus(4, 0.3)), 100, seed=5, progress=False, checkpoint=path, max_steps=2)
    rest = motes.resume(path, motes.Tempering(torus(4, 0.3)), progress=False)
    assert rest.log_evidence == whole.log_evidence
    assert torch.equal(rest.particles.x["position"], whole.particles.x["position"])
