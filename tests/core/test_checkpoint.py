"""Checkpoints: one writer a path, none that ends a run by failing, none that follows a link or leaves litter."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import motes
from core.test_faults import same
from core.toys import Walk, data
from motes.core.files import atomic
from motes.core.files.checkpoint import Checkpoint
from motes.core.files.lock import Lock
from motes.core.files.runfile import before, load
from motes.core.sample import resume, sample
from motes.errors import FileError, MotesWarning

TESTS = Path(__file__).parents[1]


def model(steps: int = 9) -> Walk:
    return Walk(data(steps), s=0.3)


@contextmanager
def full_disk():
    """No file can grow beyond 1,000 bytes: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_checkpoint_that_fails_does_not_end_the_run(tmp_path):
    path, whole = tmp_path / "run", sample(model(), 40, seed=11, progress=False)
    disk = full_disk()

    def fill(state):
        if state.particles.t == 2:
            disk.__enter__()
        if state.particles.t == 5:
            disk.__exit__(None, None, None)

    with pytest.warns(MotesWarning, match=r"t=[23] could not be written .* the next checkpoint tries again"):
        run = sample(model(), 40, seed=11, checkpoint=Checkpoint(path, every=0), callback=fill, progress=False)
    same(run, whole)
    same(load(path), whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.previous"]


def test_the_error_holds_the_run_where_its_last_write_fails(tmp_path):
    path, whole = tmp_path / "run", sample(model(), 40, seed=11, progress=False)
    with full_disk(), pytest.raises(FileError, match=r"has ended, and `run` of this error holds it") as caught:
        sample(model(), 40, seed=11, checkpoint=path, progress=False)
    same(caught.value.run, whole)
    assert isinstance(caught.value.__cause__, Exception)
    assert list(tmp_path.iterdir()) == []
    same(load(caught.value.run.save(path)), whole)


def test_an_error_of_the_model_is_not_hidden_by_one_of_the_disk(tmp_path):
    class Fails(Walk):
        def step(self, rng, particles):
            if particles.t == 4:
                raise RuntimeError("disk on fire")
            return super().step(rng, particles)

    with full_disk(), pytest.raises(RuntimeError, match="on fire") as caught:
        sample(Fails(data(9)), 40, seed=1, checkpoint=tmp_path / "run", progress=False)
    assert "t=4 could not be written" in caught.value.__notes__[0]


@pytest.mark.parametrize("kind", ["folder", "device", "inside a file", "a long name"])
def test_a_path_that_cannot_be_written_is_found_before_the_run(tmp_path, kind):
    (tmp_path / "file").write_text("")
    path = {
        "folder": tmp_path,
        "device": Path(os.devnull),
        "inside a file": tmp_path / "file" / "run",
        "a long name": tmp_path / ("n" * 300),
    }[kind]
    seen = []
    with pytest.raises((FileError, OSError)):
        sample(model(), 40, seed=1, checkpoint=path, callback=seen.append, progress=False)
    assert not seen


def test_two_runs_do_not_share_a_path(tmp_path):
    path, told = tmp_path / "run", []

    def begin_another(state):
        if state.particles.t == 3:
            with pytest.raises(FileError) as caught:
                sample(model(), 40, seed=2, checkpoint=path, progress=False)
            told.append(str(caught.value))

    first = sample(model(), 40, seed=11, checkpoint=path, callback=begin_another, progress=False)
    assert f"process {os.getpid()} (this one)" in told[0] and "choose another path" in told[0]
    same(load(path), first)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_threads_take_turns_or_are_refused(tmp_path):
    """Whoever is let in writes a whole file, and nobody meets a file that somebody else took away."""
    path, refused, other = tmp_path / "run", [], []

    def work(seed):
        for _ in range(10):
            try:
                sample(model(4), 10, seed=seed, checkpoint=Checkpoint(path, every=0, overwrite=True), progress=False)
            except FileError as error:
                refused.append(str(error))
            except BaseException as error:
                other.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not other and all("is being written by" in r for r in refused) and len(refused) < 60
    assert load(path).result is motes.Result.OK
    assert {p.name for p in tmp_path.iterdir()} <= {"run", "run.previous"}


def test_threads_that_save_to_one_path_do_not_disturb_each_other(tmp_path):
    run, other = sample(model(4), 10, seed=1, progress=False), []

    def work():
        for _ in range(15):
            try:
                run.save(tmp_path / "run")
            except BaseException as error:
                other.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert other == [] and [p.name for p in tmp_path.iterdir()] == ["run"]


HOLDS = """
import sys, time
sys.path.insert(0, {tests!r})
import os
from core.toys import Walk, data
from motes.core.sample import Checkpoint, sample
def wait(state):
    if state.particles.t == 3:
        if {fork} and os.fork() == 0:
            time.sleep(600)
        print("ready", flush=True)
        time.sleep(600)
sample(Walk(data(9), s=0.3), 40, seed=11, checkpoint=Checkpoint({path!r}, every=0), progress=False, callback=wait)
"""


@pytest.mark.parametrize("fork", [False, True])
def test_a_killed_run_frees_its_path(tmp_path, fork):
    path = tmp_path / "run"
    code = HOLDS.format(tests=str(TESTS), path=str(path), fork=fork)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ}
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    with pytest.raises(FileError, match=f"written by process {child.pid} on "):
        resume(path, model(), progress=False)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    try:
        same(resume(path, model(), progress=False), sample(model(), 40, seed=11, progress=False))
        assert {p.name for p in tmp_path.iterdir()} == {"run", "run.previous"}
    finally:
        os.killpg(child.pid, signal.SIGKILL) if fork else None


def test_what_a_killed_writer_left_is_swept_up_and_what_is_in_use_is_not(tmp_path):
    path = tmp_path / "run"
    with atomic.replacing(path) as mine:
        mine.write_text("new")
        left = mine.parent.with_name(mine.parent.name.replace(atomic.END, f"x{atomic.END}"))
        left.mkdir()
        (left / "new").write_text("old")
        other = tmp_path / f".other.abc{atomic.END}"
        other.mkdir()
        sample(model(4), 10, seed=1, progress=False).save(path)
        assert mine.exists() and not left.exists() and other.exists()
    assert path.read_text() == "new" and {p.name for p in tmp_path.iterdir()} == {"run", other.name}


def test_no_planted_link_is_followed(tmp_path):
    path, victim = tmp_path / "run", tmp_path / "victim"
    victim.write_text("dear")
    path.symlink_to(victim)
    sample(model(4), 10, seed=1, progress=False).save(path)
    assert victim.read_text() == "dear" and not path.is_symlink() and load(path).n == 10
    atomic.side_name(path, ".lock").symlink_to(victim)
    with pytest.raises(FileError, match="cannot be written"):
        sample(model(4), 10, seed=1, checkpoint=path, progress=False)
    assert victim.read_text() == "dear"


def test_the_names_of_side_files_cannot_be_guessed(tmp_path):
    seen = []
    for _ in range(3):
        with atomic.replacing(tmp_path / "run") as aside:
            assert aside.parent.stat().st_mode & 0o777 == 0o700
            seen.append(aside.parent.name)
            aside.write_text("")
    assert len(set(seen)) == 3


def test_a_lock_that_is_no_file_of_motes_says_nothing_false(tmp_path):
    path = tmp_path / "run"
    side = atomic.side_name(path, ".lock")
    side.write_text("\x1b[31m 12 \u202e x y z")
    with Lock(path):
        pass
    assert not side.exists()
    os.mkfifo(side)
    with pytest.raises(FileError, match="no file of motes"), Lock(path):
        pass


def test_a_run_that_goes_on_elsewhere_leaves_its_source_alone(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    sample(model(), 40, seed=11, checkpoint=Checkpoint(first, every=0), max_steps=4, progress=False)
    kept = first.read_bytes(), before(first).read_bytes()
    resume(first, model(), checkpoint=Checkpoint(second, every=0), progress=False)
    assert (first.read_bytes(), before(first).read_bytes()) == kept
    assert load(before(second)).particles.t == 8


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_run_is_as_readable_as_other_new_files(tmp_path, mask):
    before_ = os.umask(mask)
    try:
        sample(model(4), 10, seed=1, progress=False).save(tmp_path / "run")
        (tmp_path / "other").write_text("")
    finally:
        os.umask(before_)
    assert (tmp_path / "run").stat().st_mode == (tmp_path / "other").stat().st_mode
