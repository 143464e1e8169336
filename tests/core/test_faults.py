"""Nothing is lost: files, checkpoints, kill -9, resumption bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import motes
from core.toys import Walk, data
from motes.core import tree
from motes.core.files import store as files
from motes.core.files.runfile import load
from motes.core.run import Result
from motes.core.sample import Checkpoint, resume, sample
from motes.errors import FileError

TESTS = Path(__file__).parents[1]


def same(a, b) -> None:
    """Two runs hold the same bits (times apart)."""
    assert tree.equal(a.particles.x, b.particles.x)
    for name in ("log_weight", "ancestor", "root"):
        assert torch.equal(getattr(a.particles, name), getattr(b.particles, name)), name
    assert a.particles.t == b.particles.t and a.result is b.result
    assert a.log_evidence == b.log_evidence
    assert repr(a.standard_error) == repr(b.standard_error)
    for column in a.trace:
        if column != "seconds":
            assert a.trace[column].tobytes() == b.trace[column].tobytes(), column


@pytest.mark.parametrize("stop", range(8))
def test_resume_from_every_step(tmp_path, stop):
    model = Walk(data(9), s=0.3)
    whole = sample(model, 40, seed=11, progress=False)
    part = sample(model, 40, seed=11, max_steps=stop, checkpoint=tmp_path / "run", progress=False)
    if stop:
        assert part.result is Result.MAX_STEPS and part.particles.t == stop
    same(resume(tmp_path / "run", Walk(data(9), s=0.3), progress=False), whole)
    same(load(tmp_path / "run"), whole)


def test_save_and_load(tmp_path):
    run = sample(Walk(data(6)), 30, seed=2, progress=False)
    again = motes.load(run.save(tmp_path / "deep" / "er" / "run"))
    same(run, again)
    assert again.setup == run.setup and again.references == run.references
    assert torch.equal(again.draws(5), run.draws(5))
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["run"]


def test_a_model_that_raises_leaves_a_checkpoint(tmp_path):
    class Fails(Walk):
        def step(self, rng, particles):
            if particles.t == 4:
                raise RuntimeError("disk on fire")
            return super().step(rng, particles)

    with pytest.raises(RuntimeError, match="disk on fire") as caught:
        sample(Fails(data(9)), 20, seed=1, checkpoint=tmp_path / "run", progress=False)
    assert "motes.resume" in caught.value.__notes__[0]
    kept = load(tmp_path / "run")
    assert kept.result is Result.INTERRUPTED and kept.particles.t == 4


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from core.toys import Walk, data
from motes.core.sample import Checkpoint, sample
sample(Walk(data(150), s=0.3), 64, seed=7, checkpoint=Checkpoint({path!r}, every=0), progress=False,
       callback=lambda s: print(s.particles.t, flush=True))
"""


def test_kill_9_at_random_points_and_resume_bitwise(tmp_path):
    """The process dies without warning, often in the middle of a write; what it leaves continues to the same bits."""
    whole = sample(Walk(data(150), s=0.3), 64, seed=7, progress=False)
    wait = motes.Rng(0).at("kill").uniform((3,)).tolist()
    reached = []
    for k, u in enumerate(wait):
        path = tmp_path / f"run{k}"
        code = KILLED.format(tests=str(TESTS), path=str(path))
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        while int(child.stdout.readline()) < 2 + int(100 * u):
            pass
        time.sleep(0.002 * u)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        reached.append(load(path).particles.t)
        same(resume(path, Walk(data(150), s=0.3), progress=False), whole)
    assert all(0 < t < 149 for t in reached)


def test_resume_refuses_another_model(tmp_path):
    sample(Walk(data(9)), 10, seed=1, max_steps=2, checkpoint=tmp_path / "run", progress=False)
    with pytest.raises(FileError, match="differ in: a"):
        resume(tmp_path / "run", Walk(data(9), a=0.8), progress=False)


def test_resume_goes_on_writing_where_it_is_told(tmp_path):
    sample(Walk(data(9)), 10, seed=1, max_steps=2, checkpoint=tmp_path / "run", progress=False)
    resume(tmp_path / "run", Walk(data(9)), checkpoint=Checkpoint(tmp_path / "new", every=0), progress=False)
    assert load(tmp_path / "run").particles.t == 2 and load(tmp_path / "new").result is Result.OK


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, keep):
    path = sample(Walk(data(4)), 10, seed=1, progress=False).save(tmp_path / "run")
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(FileError, match="truncated"):
        load(path)


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("not a run")
    save_file({"a": torch.zeros(3)}, tmp_path / "tensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "odd", metadata={"motes": "{}"})
    save_file({"a": torch.zeros(3)}, tmp_path / "later", metadata={"motes": json.dumps({"format": 99})})
    save_file({"a": torch.zeros(3)}, tmp_path / "older", metadata={"motes": json.dumps({"format": 1})})
    files.write(tmp_path / "lacking", {}, {})
    for name, says in [
        ("text", "no motes run"),
        ("tensors", "not one that motes wrote"),
        ("odd", "damaged"),
        ("older", "format 1"),
        ("later", "format 99"),
        ("lacking", "lacks"),
    ]:
        with pytest.raises(FileError, match=says):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no run"):
        load(tmp_path / "nothing")
