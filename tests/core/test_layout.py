"""A tensor that was read lies in memory as the one that was written, as far as the bits of products depend on it."""

from __future__ import annotations

import pytest
import torch

import motes
from motes.core.files import store as files
from motes.core.files.layout import LINE, laid, layout
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.smc import State
from motes.errors import FileError
from place import place_changes_bits

BIG = torch.arange(4000, dtype=torch.float64)
SHAPES = {
    "new": BIG.clone(),
    "transposed": torch.eye(7).T,
    "a factor of Cholesky's": torch.linalg.cholesky(torch.eye(5, dtype=torch.float64).repeat(3, 1, 1)),
    "a slice": BIG[3:20],
    "columns": BIG.view(40, 100)[:, 5:9],
    "every third": BIG[1::3],
    "one axis expanded": torch.ones(1, 4).expand(6, 4),
    "a number expanded": torch.tensor(2.0).expand(5),
    "pixels last": torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "a window that overlaps": BIG.unfold(0, 3, 1),
    "no axis": torch.tensor(3),
    "nothing": torch.zeros(0, 3),
    "half": torch.zeros(9, 9, dtype=torch.half)[:, 1],
    "truth": torch.ones(70, dtype=torch.bool)[5:],
    "conjugated": torch.complex(torch.ones(3), torch.ones(3)).conj(),
}


def lies(tensor):
    """What products can see of a layout: strides modulo a line, gaps, the address modulo a line."""
    line = LINE // tensor.element_size()
    long = [s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1]
    return tensor.is_contiguous(), [(s % line, s == 0) for s in long], tensor.numel() and tensor.data_ptr() % LINE


@pytest.mark.parametrize("name", SHAPES)
def test_it_lies_as_it_did(name, tmp_path):
    files.write(tmp_path / "file", {"x": SHAPES[name]}, {})
    read = files.read(tmp_path / "file")[0]["x"]
    assert read.dtype == SHAPES[name].dtype and torch.equal(read, SHAPES[name])
    if name != "a window that overlaps":
        assert lies(read) == lies(SHAPES[name])
    assert read.untyped_storage().nbytes() <= LINE * (read.numel() + 2)


@pytest.mark.parametrize("how", [{"stride": [1]}, {"stride": [-1, 1], "offset": 0}, {"stride": [1, 1, 1], "offset": 0}])
def test_a_layout_that_is_none_is_refused(how):
    with pytest.raises(FileError):
        laid(torch.zeros(3, 4), how, "x")


@pytest.mark.parametrize("stride", [[1 << 62, 1], [1 << 40, 1 << 61], [0, 0], [1, 1], [3, 5]])
def test_no_layout_asks_for_memory(stride):
    read = laid(torch.ones(3, 4), {"stride": stride, "offset": 4}, "x")
    assert torch.equal(read, torch.ones(3, 4)) and read.untyped_storage().nbytes() < 16 * LINE


class Rotated(FeynmanKac):
    """Particles that are turned by a matrix that lies column by column, of which each sees a slice."""

    def init(self, rng, n):
        x = rng.at("x").normal((n, 33))
        turn = torch.linalg.cholesky(torch.eye(32, dtype=torch.float64) + 0.1 * x[:32, :32] @ x[:32, :32].T / 32)
        return Particles.start({"x": x[:, 1:]}, torch.zeros(n, dtype=torch.float64), shared={"turn": turn})

    def step(self, rng, particles):
        turn = particles.shared["turn"]
        moved = particles.x["x"] @ turn / 1.2
        wide = torch.cat([moved[:, :1], moved], 1)
        return particles.step({"x": wide[:, 1:]}, -wide.square().mean(1), shared={"turn": turn})

    def done(self, particles):
        return particles.t == 5


def differing(tmp_path) -> list[int]:
    """The steps whose result differs if they are taken from a file."""
    whole: list[State] = []
    motes.sample(Rotated(), 40, seed=4, ess_threshold=0, progress=False, callback=whole.append)
    wrong = []
    for t in range(1, 6):
        path = tmp_path / f"run-{t}"
        motes.sample(Rotated(), 40, seed=4, ess_threshold=0, progress=False, max_steps=t - 1, checkpoint=path)
        run = motes.resume(path, Rotated(), progress=False, max_steps=t)
        if not torch.equal(run.particles.x["x"], whole[t].particles.x["x"]):
            wrong.append(t)
    return wrong


def test_a_run_that_depends_on_layouts_goes_on_bit_for_bit(tmp_path):
    assert differing(tmp_path) == []


def test_without_layouts_it_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "layout", lambda tensor: None)
    wrong = differing(tmp_path)
    if not wrong and not place_changes_bits():
        pytest.skip("the products of this processor do not depend on where their operands lie")
    assert wrong


def test_a_layout_is_written_only_where_it_is_unusual():
    assert layout(torch.zeros(3, 4)) is None and layout(torch.zeros(3, 4).T) is not None
