"""Means that drift under moves that leave a law invariant: not from exact draws, surely from a wrong population."""

from __future__ import annotations

import pytest
import torch

from kernels.test_noncentred import Funnel, funnel
from motes.kernels.stationarity.drift import drift, median, watched
from motes.kernels.stationarity.probe import probe
from motes.rng import Rng

N = 2000
EVEN = torch.full((N,), 1 / N, dtype=torch.float64)
OWN = torch.arange(N)


@pytest.mark.parametrize("seed", range(4))
def test_exact_draws_do_not_drift(seed):
    x = funnel(seed, N)
    found = probe(Rng(seed), Funnel(), {"position": x}, EVEN, OWN, 20)
    assert not found.detected and found.largest < found.limit


def test_who_never_entered_the_neck_is_found_out():
    x = funnel(7, 3 * N)
    outside = x[x[:, 0] > -1.0][:N]  # a fifth of the mass is missing
    found = probe(Rng(0), Funnel(), {"position": outside}, EVEN, OWN, 60)
    assert found.detected and float(found.score[0]) < -found.limit


def test_copies_count_once():
    x = funnel(8, N)
    middle = median({"position": x})
    before = watched(Funnel(), {"position": x}, middle)
    moved = before.clone()
    moved[:, 0] += torch.where(OWN < N // 50, 1.0, 0.0)  # forty particles that are copies of one move together
    family = torch.where(OWN < N // 50, 0, OWN)
    alone, together = drift(before, moved, EVEN, OWN), drift(before, moved, EVEN, family)
    assert alone.detected and not together.detected
    assert torch.equal(alone.shift, together.shift)
