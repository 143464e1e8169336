"""No bit of a golden run moves unless somebody means it."""

import pytest
import torch

from golden.record import digest, kind, read, record
from golden.runs import RUNS
from motes.core.particles import Particles

KEPT = read()


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_golden_run_is_as_it_was(name: str) -> None:
    was, now = KEPT["runs"][name], record(RUNS[name])
    assert now["start"] == pytest.approx(was["start"], rel=1e-9, abs=1e-12)
    if kind() == KEPT["machine"]:
        assert now["bits"] == was["bits"]


def test_there_is_a_record_of_each_and_no_other() -> None:
    assert sorted(KEPT["runs"]) == sorted(RUNS)


def test_one_bit_is_another_digest() -> None:
    particles = Particles.start({"x": torch.arange(4.0)}, torch.zeros(4, dtype=torch.float64))
    moved = particles.x["x"].clone()
    moved.view(torch.int32)[2] ^= 1
    other = Particles.start({"x": moved}, torch.zeros(4, dtype=torch.float64))
    assert digest(particles) == digest(particles) != digest(other)
