"""Give a reader malformed inputs, and tell what it should not have done with them."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from motes import Rng
from motes.core.resampling import schemes
from motes.errors import MotesError

SECONDS, BYTES = 2.0, 500_000_000
"""What one input may cost: seconds of the processor (not of the clock), and memory."""


N = 1 << 16
"""As many numbers as are worth compiled loops."""


class TooSlow(BaseException):
    """An input has cost more processor time than it may; no reader can take it for an error of its own."""


@dataclass(frozen=True)
class Reader:
    """Something that reads what comes from outside.

    Attributes:
        name: what `make fuzz` calls it.
        make: one input, malformed mostly, from random numbers; it may be anything that `read` takes.
        read: reads the input as a user's program would, and uses what came of it. It gets a folder of its own.
        refusals: the errors that it may raise.
        count: inputs of a full run.
        slice: inputs in the tests.
    """

    name: str
    make: Callable[[random.Random], Any]
    read: Callable[[Any, Path], object]
    refusals: tuple[type[BaseException], ...] = (MotesError,)
    count: int = 20_000
    slice: int = 200


@dataclass(frozen=True)
class Finding:
    """An input that a reader did not refuse as it should have."""

    reader: str
    number: int
    error: str
    input: str


@contextmanager
def limits(seconds: float = SECONDS, extra: int = BYTES) -> Iterator[None]:
    """Stop what costs more: TooSlow after so much processor time, MemoryError above so many bytes more than now."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {seconds} s of processor time")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    handler = signal.signal(signal.SIGVTALRM, stop)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (now + extra, hard))
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, handler)


def try_one(reader: Reader, number: int, folder: Path) -> Finding | None:
    """Read input `number` of a reader: None if it was read or refused as it may be."""
    given = reader.make(random.Random(f"{reader.name} {number}"))
    (folder / "under-way").write_text(f"{reader.name} {number}\n")  # where to look if the process dies of it
    start, error = time.process_time(), ""
    try:
        with limits():
            reader.read(given, folder)
    except reader.refusals:
        pass
    except KeyboardInterrupt:
        raise
    except BaseException:
        error = traceback.format_exc(limit=-6)
    cost = time.process_time() - start
    if not error and cost > 1.5 * SECONDS:
        error = f"{cost:.1f} s of processor time"
    return Finding(reader.name, number, error, repr(given)[:2000]) if error else None


@cache
def compiled() -> None:
    """Compile what is compiled at its first call, which costs seconds that are no input's."""
    rng, level = Rng(0), torch.zeros(N, dtype=torch.float64)
    for name in schemes:
        schemes.find(name)(rng.at(name), level, n=N, order=level)
    for draw in (rng.uniform, rng.normal, rng.exponential):
        for dtype in (torch.float32, torch.float64):
            draw((N,), dtype=dtype)
    rng.integers((N,), 3), rng.permutation(N), rng.gamma((N,), level + 1)


def run(reader: Reader, numbers: range, folder: Path) -> Iterator[Finding]:
    """What a reader should not have done with inputs of these numbers."""
    compiled()
    for number in numbers:
        finding = try_one(reader, number, folder)
        if finding is not None:
            yield finding
