"""No bit of a golden run moves unless somebody means it, and none meets the same random numbers twice."""

from collections import Counter

import pytest
import torch

from golden.record import digest, kind, read, record
from golden.runs import RUNS
from motes.core.particles import Particles
from motes.rng import Rng

KEPT = read()
ON_PURPOSE = "sweep/jitter"
"""The one number that all sweeps have in common: the shift of a low-discrepancy sequence."""


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[object, ...]]:
    """How often numbers were drawn at each address, but for those with which a model tries its functions."""
    met: Counter[tuple[object, ...]] = Counter()
    right = Rng._draw

    def draw(self: Rng, what: str, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if tuple(shape) and 0 not in shape and not self.purpose.startswith(("probe/", "floor/")):
            ids = None if self.ids is None else tuple(self.ids.tolist())
            met[self.purpose, self.step, self.inner, kind, dtype, ids] += 1
        return right(self, what, kind, shape, dtype)

    monkeypatch.setattr(Rng, "_draw", draw)
    return met


def repeated(met: Counter[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [address for address, count in met.items() if count > 1 and not str(address[0]).endswith(ON_PURPOSE)]


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_golden_run_is_as_it_was(name: str, addresses: Counter[tuple[object, ...]]) -> None:
    was, now = KEPT["runs"][name], record(RUNS[name])
    assert not repeated(addresses)
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


def test_a_loop_in_a_loop_has_addresses_of_its_own(addresses: Counter[tuple[object, ...]]) -> None:
    for i in range(3):
        for k in range(3):
            Rng(5).at("round", inner=i).at("sweep", inner=k).normal((2,))
    assert not repeated(addresses)
    for i in range(3):  # what `at` once did: the inner number of the sweep took the place of the round's
        Rng(5, purpose="round/sweep", inner=i).normal((2,))
    assert len(repeated(addresses)) == 3
