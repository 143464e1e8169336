"""Ctrl-C: the last whole state is returned wherever it falls, a second one is raised, and a run goes on to its bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import motes
from core.toys import Walk, data
from motes.core import drive, joined, replicas, run, smc, trace
from motes.core.drive import uninterrupted
from motes.core.history import genealogy, growing
from motes.core.result import Result
from motes.errors import MotesWarning

TESTS = Path(__file__).parents[1]
WATCHED = {m.__file__ for m in (drive, genealogy, growing, joined, replicas, run, smc, trace)}
STEPS, N = 5, 8


def interrupted_at(line: int, **knobs):
    """The run in which Ctrl-C falls on the `line`-th line that the engine executes, and how many there were."""
    count = 0

    def watch(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line" and under:
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return watch

    class Marked(drive.Drive):
        def go(self):
            nonlocal under
            under = True
            try:
                return super().go()
            finally:
                under = False

    under = False
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr("motes.core.sample.Drive", Marked)
        before = sys.gettrace()
        sys.settrace(watch)
        try:
            return motes.sample(Walk(data(STEPS)), N, seed=3, progress=False, **knobs), count
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("knobs", [{}, {"replicas": 3}], ids=["alone", "replicas"])
def test_an_interrupt_may_fall_on_any_line_of_the_engine(knobs):
    states = {
        (j, state.particles.t): state
        for j in range(knobs.get("replicas", 1))
        for state in motes.steps(Walk(data(STEPS)), N, seed=motes.Rng(3).replica(j))
    }
    whole, lines = interrupted_at(0, **knobs)
    assert lines > 400
    reached, lost = set(), 0
    for line in range(1, lines, 7 if knobs else 3):
        try:
            found, _ = interrupted_at(line, **knobs)
        except KeyboardInterrupt:
            lost = line
            continue
        for j, part in enumerate(found.replicas or [found]):
            t = part.particles.t
            state = states[j, t]
            assert torch.equal(part.log_weight, state.particles.log_weight)
            assert part.trace["ess"].tolist() == state.trace["ess"].tolist()
            assert all(torch.equal(v, state.genealogy.state()[k]) for k, v in part.genealogy.state().items())
            assert part.result is (Result.OK if t == STEPS - 1 else Result.INTERRUPTED)
            reached.add((j, t))
        if found.result is Result.OK:
            assert torch.equal(found.log_weight, whole.log_weight)
    assert reached == set(states)
    assert lost < lines / 4  # only as long as there was nothing


class Stopped(Walk):
    """Ctrl-C falls into its step from a time."""

    at: int | None = 2

    def step(self, rng, particles):
        if particles.t == self.at:
            raise KeyboardInterrupt
        return super().step(rng, particles)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_warning_says_how_to_go_on_and_that_is_right(tmp_path, replicas):
    with pytest.warns(MotesWarning, match=r"interrupted after .*run\.save\(path\), then motes\.resume\(path, model\)"):
        found = motes.sample(Stopped(data(9)), 16, seed=5, progress=False, replicas=replicas)
    assert found.result is Result.INTERRUPTED and found.particles.t == 2 and len(found.view) == 16
    model = Stopped(data(9))
    model.at = None
    again = motes.resume(found.save(tmp_path / "run"), model, progress=False)
    whole = motes.sample(model, 16, seed=5, progress=False, replicas=replicas)
    assert torch.equal(again.log_weight, whole.log_weight) and repr(again) == repr(whole)


def test_with_a_checkpoint_the_file_holds_what_is_returned(tmp_path):
    with pytest.warns(MotesWarning, match="goes on from here, to the same numbers"):
        found = motes.sample(Stopped(data(9)), 16, seed=5, progress=False, checkpoint=tmp_path / "run")
    kept = motes.load(tmp_path / "run")
    assert kept.result is Result.INTERRUPTED and torch.equal(kept.log_weight, found.log_weight)


def test_random_numbers_from_elsewhere_cannot_go_on():
    with pytest.warns(MotesWarning, match="cannot be resumed"):
        motes.sample(Stopped(data(9)), 16, seed=motes.Rng(5), progress=False)


def test_before_there_is_anything_it_is_raised():
    class Never(Walk):
        def init(self, rng, n):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        motes.sample(Never(data(9)), 16, seed=5, progress=False)


def test_a_second_one_is_raised():
    class Twice(Stopped):
        def view(self, particles):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        motes.sample(Twice(data(9)), 16, seed=5, progress=False)


def test_what_is_made_of_several_runs_stops_with_one():
    whole = motes.sample(Walk(data(4)), 16, seed=5, progress=False)
    assert uninterrupted(whole) is whole
    with pytest.warns(MotesWarning), pytest.raises(KeyboardInterrupt):
        uninterrupted(motes.sample(Stopped(data(9)), 16, seed=5, progress=False))


LONG = """
import sys
sys.path.insert(0, {tests!r})
from core.toys import Walk, data
import motes

def callback(state):
    if state.particles.t == 3:
        print("under way", flush=True)

class Slow(Walk):
    def view(self, particles):
        print("finishing", flush=True)
        {wait}
        return super().view(particles)

run = motes.sample(Slow(data(200_000)), 16, seed=1, progress=False, callback=callback)
print(run.result.value, run.particles.t >= 3, len(run.view), flush=True)
print("and on")
"""


def signalled(signals: int, wait: str = "pass") -> tuple[int, str, str]:
    """A process that is sent SIGINT, and what became of it."""
    code = LONG.format(tests=str(TESTS), wait=wait)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(signals):
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    return child.returncode, out, err


def test_a_real_one_returns_the_run_and_the_program_goes_on():
    code, out, err = signalled(1)
    assert code == 0 and out.splitlines()[-2:] == ["INTERRUPTED True 16", "and on"]
    assert "MotesWarning: interrupted after t=" in err and "motes.resume(path, model)" in err


def test_a_second_real_one_ends_the_program():
    code, out, err = signalled(2, "import threading; threading.Event().wait()")
    assert code != 0 and "KeyboardInterrupt" in err and "and on" not in out
