"""Writing a run on its way: when, where, what happens if it cannot be written, and which file counts afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from motes.core.files import store as files
from motes.core.files.lock import Lock
from motes.core.files.occupied import must_be_free
from motes.core.files.runfile import before, recovered
from motes.core.model import FeynmanKac
from motes.core.run import Run
from motes.errors import FileError, warn

Found = Literal["another", "same", "damaged"]
"""What stands at a checkpoint's path when a run begins to write there: nothing or another run, an earlier state of this
run, or a damaged one whose predecessor is good."""


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a run is written on its way: to `path`, at most every `every` seconds, and at the end.

    A run that stands at `path` and would be lost is an error, unless `overwrite` is True: one that is not finished, one
    with another setup (seed, number of particles, settings, ...) or another likelihood or reward, or a file that is
    none of motes.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    every: float = 60.0
    overwrite: bool = False

    @classmethod
    def of(cls, checkpoint: str | os.PathLike[str] | Checkpoint | None) -> Checkpoint | None:
        """What `motes.sample(checkpoint=...)` was given, as a Checkpoint."""
        return checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else cls(checkpoint)


@dataclass(frozen=True)
class Source:
    """The file that a run is resumed from, and which must not change until the run has the right to write there."""

    path: Path
    good: bool
    stamp: tuple[int, ...] | None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> tuple[Run, Source]:
        """The run at `path` or, where that file is damaged, at the one before it."""
        path = Path(path)
        stamp = _stamp(path)
        run, good = recovered(path)
        return run, cls(path, good, stamp)

    def found(self, to: Checkpoint) -> Found:
        """What this source means for a run that goes on writing to `to`."""
        here, there = (p.parent.resolve() / p.name for p in (self.path, Path(to.path)))
        return "another" if here != there else "same" if self.good else "damaged"

    def must_be_unchanged(self) -> None:
        """A FileError if somebody has written to the file since it was read."""
        if _stamp(self.path) != self.stamp:
            raise FileError(f"{self.path} was written to while it was read, so another run goes on there; resume again")


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Writer:
    """Writes the checkpoints of one run, and keeps its path for it from `with` to its end.

    The last two are kept: the one before the present one stands beside it (`before(path)`). One that cannot be written
    does not end the run: it warns, and the next occasion tries again.

    Args:
        to: where and how often; None writes nothing.
        setup: what the run is told by.
        found: what stands there.
        model: what is asked whether a finished run there is its own.

    Raises:
        FileError: at the start of `with`: nothing can be written there, another run is writing there, or one stands
            there that would be lost.
    """

    def __init__(
        self, to: Checkpoint | None, setup: dict[str, Any], found: Found = "another", model: FeynmanKac | None = None
    ):
        self.to, self.model = to, model
        self.setup = setup
        self.found = found
        self.path: Path | None = None if to is None else Path(to.path)
        self.written = time.monotonic()
        self.held = ExitStack()

    def __enter__(self) -> Self:
        if self.path is not None and self.to is not None:
            with ExitStack() as held:
                held.enter_context(Lock(self.path))
                if self.found == "another" and not self.to.overwrite:
                    must_be_free(self.path, self.setup, self.model)
                self.held: ExitStack[bool | None] = held.pop_all()
        self.written = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.close()

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.to is not None and time.monotonic() - self.written >= self.to.every

    def write(self, run: Run) -> None:
        """Write a run on its way; where that fails, warn."""
        fault = self._write(run)
        if fault is not None:
            warn(f"{fault}; the run goes on, and the next checkpoint tries again")

    def finish(self, run: Run) -> FileError | None:
        """Write a run that has ended.

        Returns:
            None; or, where that failed, an error that holds the run and says so.
        """
        fault = self._write(run)
        if fault is None:
            return None
        error = FileError(f"{fault}. The run itself has ended, and `run` of this error holds it: error.run.save(path)")
        error.run, error.__cause__ = run, fault.__cause__
        return error

    def rescue(self, run: Callable[[], Run], error: BaseException) -> None:
        """Write what there is when a run ends with an error, and say in a note of the error where it is."""
        if self.path is None:
            return
        try:
            reached = run()
        except Exception as other:  # noqa: BLE001 the error under way is the one to see
            error.add_note(f"the last state could not be kept: {type(other).__name__}: {other}")
            return
        fault = self._write(reached)
        told = f"the run up to t={reached.particles.t} is in {self.path}; motes.resume continues it"
        error.add_note(told if fault is None else str(fault))

    def _write(self, run: Run) -> FileError | None:
        if self.path is None:
            return None
        previous = before(self.path)
        try:
            files.write(self.path, *run.contents(), previous=previous if self.found == "same" else None)
            if self.found == "another":
                previous.unlink(missing_ok=True)
            self.found = "same"
        except Exception as error:  # noqa: BLE001 a full disk, a folder that is gone, a leaf that no file can hold
            fault = FileError(f"the state at t={run.particles.t} could not be written to {self.path}: {error}")
            fault.__cause__ = error
            return fault
        finally:
            self.written: float = time.monotonic()
        return None
