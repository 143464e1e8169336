"""A file of a run is believed only where it is whole: digests, the checkpoint before, what a header may say."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
import torch

import motes
from core.test_faults import same
from core.toys import Walk, data
from fuzz.readers.runs import sealed, whole
from motes.core import tree
from motes.core.files import store as files
from motes.core.files.checkpoint import Checkpoint
from motes.core.files.runfile import before, load
from motes.core.sample import resume, sample
from motes.errors import FileError, MotesWarning


def model() -> Walk:
    return Walk(data(9), s=0.3)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return sample(model(), 40, seed=11, max_steps=5, progress=False).save(tmp_path / "run")


def test_no_flipped_bit_passes(good):
    kept, rng = good.read_bytes(), random.Random(0)
    for place in (rng.randrange(8 * len(kept)) for _ in range(500)):
        spoilt = bytearray(kept)
        spoilt[place // 8] ^= 1 << place % 8
        good.write_bytes(spoilt)
        with pytest.raises(FileError):
            load(good)


def test_no_truncated_file_passes(good):
    kept, rng = good.read_bytes(), random.Random(1)
    for length in (rng.randrange(len(kept)) for _ in range(50)):
        good.write_bytes(kept[:length])
        with pytest.raises(FileError):
            load(good)


def test_a_file_without_digests_would_believe_most_of_them(good):
    """The broken twin: the same flips with the digests made anew are read as another run."""
    _, header, tensors = whole()
    seed = {**header["meta"], "setup": {**header["meta"]["setup"], "seed": 7}}
    good.write_bytes(sealed({**header, "meta": seed}, tensors))
    assert load(good).seed == 7


def test_what_is_damaged_is_named(good):
    kept = good.read_bytes()
    good.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(FileError, match=r"run is damaged: .* is not what was written"):
        load(good)


def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path):
    whole_run = sample(model(), 40, seed=11, progress=False)
    path = tmp_path / "run"
    sample(model(), 40, seed=11, checkpoint=Checkpoint(path, every=0), max_steps=5, progress=False)
    assert load(path).particles.t == 5 and load(before(path)).particles.t == 4
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(MotesWarning, match="truncated.* The checkpoint before it, .* stands at t=4"):
        assert load(path).particles.t == 4
    with pytest.warns(MotesWarning, match="stands at t=4"):
        same(resume(path, model(), progress=False), whole_run)
    assert load(path).result is motes.Result.OK
    path.unlink()
    with pytest.warns(MotesWarning, match="there is no run at"):
        load(path)
    before(path).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="there is no run"):
        load(path)


def test_a_damaged_file_does_not_take_the_place_of_the_good_one(tmp_path):
    path = tmp_path / "run"
    sample(model(), 40, seed=11, checkpoint=Checkpoint(path, every=0), max_steps=5, progress=False)
    path.write_bytes(b"spoilt")
    with pytest.warns(MotesWarning, match="stands at t=4"):
        resume(path, model(), max_steps=5, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path).particles.t == 5 and load(before(path)).particles.t == 4


def test_the_checkpoint_before_is_never_that_of_another_run(tmp_path):
    path = tmp_path / "run"
    sample(model(), 40, seed=1, checkpoint=Checkpoint(path, every=0), progress=False)
    sample(model(), 40, seed=2, checkpoint=Checkpoint(path, overwrite=True), progress=False)
    assert not before(path).exists()
    path.write_bytes(b"spoilt")
    with pytest.raises(FileError, match="no motes run"):
        load(path)


def nested(depth: int) -> object:
    return {"list": [nested(depth - 1)]} if depth else {"value": 0}


@pytest.mark.parametrize(
    "at, value, says",
    [
        (("trees", "particles"), nested(70), "more than 60 deep"),
        (("trees", "particles"), {"value": 3}, "particles must be a dict"),
        (("trees", "trace"), {"dict": {"t": {"texts": ["a"]}}}, "trace"),
        (("trees", "genealogy"), {"tensor": "nowhere"}, "does not hold"),
        (("trees", "genealogy"), {"value": {}}, "must be a number"),
        (("meta", "t"), "4", "whole number"),
        (("meta", "t"), 10**18, "the genealogy is of"),
        (("meta", "setup", "n"), 10**17, "speaks of"),
        (("meta", "setup", "ess_threshold"), None, "number from 0 to 1"),
        (("meta", "setup", "view"), "paths", "no view is called 'paths'"),
        (("meta", "setup", "view"), "texts", "a list of strings, not Tensor"),
        (("meta", "setup"), [], "dict"),
        (("meta", "result"), "FINE", "one of OK"),
        (("meta", "references"), [1], "dict"),
        (("meta", "setup", "replicas"), 10**9, "of 1000000000 populations|1000000000 populations, and one"),
        (("meta", "own_error"), {"value": 1.0, "method": "", "reason": "", "means": "", "freedom": 3, "x": 1}, "'x'"),
        (("meta", "own_error"), {"value": "large"}, "own_error"),
        (("meta", "remarks"), [{"text": "a", "doubts": ["all"], "withholds": False}], "evidence"),
    ],
)
def test_what_no_run_holds_is_refused_by_name(good, at, value, says):
    _, header, tensors = whole()
    spoilt = inside = {**header}
    for key in at[:-1]:
        inside[key] = {**inside[key]}
        inside = inside[key]
    inside[at[-1]] = value
    good.write_bytes(sealed(spoilt, tensors))
    with pytest.raises(FileError, match=says):
        load(good)


@pytest.mark.parametrize("name", ["particles/root", "particles/ancestor", "genealogy/anchor_slot", "genealogy/record"])
@pytest.mark.parametrize("slot", [-1, 12, 2**31 - 1])
def test_slots_out_of_range_are_refused(good, name, slot):
    _, header, tensors = whole()
    spoilt = tensors[name].clone()
    spoilt.reshape(-1)[3] = slot
    good.write_bytes(sealed({**header}, {**tensors, name: spoilt}))
    with pytest.raises(FileError, match=f"numbers from 0 to 11, not {slot}"):
        load(good)


def test_a_header_that_is_nested_deep_is_refused(good):
    files.save_file({"a": torch.zeros(1)}, good, metadata={"motes": "[" * 100_000, "digest": ""})
    with pytest.raises(FileError, match="no JSON that can be read"):
        load(good)


def test_trees_come_back_as_they_were(tmp_path):
    trees = {
        "x": {
            "a": torch.arange(3),
            "b": (torch.zeros(0, 2), [1, 2.5, None, True, "s"]),
            "deep/er": {"a": torch.eye(2)},
        },
        "deep": {"er": {"a": torch.ones(1, dtype=torch.bool)}},
        "texts": ["", "\ud800", "\u202eabc"],
        "number": float("inf"),
    }
    files.write(tmp_path / "file", trees, {"note": "\udc80"})
    again, meta = files.read(tmp_path / "file")
    assert tree.equal(again, trees) and meta == {"note": "\udc80"}


def test_tensors_that_were_read_lie_where_torch_puts_its_own(tmp_path):
    odd = {f"v{k}": torch.arange(k, dtype=torch.uint8) for k in range(1, 9)}
    files.write(tmp_path / "file", {"x": {**odd, "w": torch.eye(31, dtype=torch.float64)}}, {})
    with files.safe_open(tmp_path / "file", "pt") as f:
        mapped = [f.get_tensor(k).data_ptr() % 64 for k in f.keys()]  # noqa: SIM118
    assert any(mapped)  # the broken twin: in the file they lie anywhere
    assert not any(leaf.data_ptr() % 64 for _, leaf in tree.leaves(files.read(tmp_path / "file")[0]["x"]))


@pytest.mark.parametrize("key, other", [("threads", 7), ("cpu", "AVX9"), ("versions", {"motes": "0", "torch": "1"})])
def test_what_may_change_bits_is_said_on_resume(good, key, other):
    _, header, tensors = whole()
    changed = {**header["meta"], "setup": {**header["meta"]["setup"], key: other}}
    good.write_bytes(sealed({**header, "meta": changed}, tensors))
    with pytest.warns(MotesWarning, match=r"the last bits .* then, .* now"):
        resume(good, model(), progress=False)


def test_nothing_is_said_on_resume_where_nothing_differs(good):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resume(good, model(), progress=False)
