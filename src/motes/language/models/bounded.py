"""Code of a model's own, such as its chat template, run in a copy of the process that can be stopped."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from motes.errors import MotesError

SECONDS, BYTES, LONGEST = 5.0, 500_000_000, 16_000_000
"""Processor time and memory that a copy may use beside what it began with, and the most bytes that it may say."""
PATIENCE = 12
"""As many times the processor time may pass on the clock."""


def bounded(make: Callable[[], str]) -> str:
    """The text that a function makes, in a fork that ends when it has used `SECONDS` or `BYTES`.

    Where the system has no fork, the function is called here, without bounds.

    Raises:
        MotesError: it raised an error, which is named, or did not end within its bounds.
    """
    if os.name != "posix":
        return make()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the copy runs Python alone, and no torch
        child = os.fork()
    if child == 0:
        _speak(make, writing)
    os.close(writing)
    said = b""
    try:
        said = _heard(reading)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        kind, text = json.loads(said)
    except ValueError:
        raise MotesError(
            f"it did not end within {SECONDS:g} s, {BYTES // 10**6} MB of memory and {LONGEST // 10**6} MB of text"
        ) from None
    if kind == "error":
        raise MotesError(text)
    return text


def _speak(make: Callable[[], str], writing: int) -> None:
    """In the copy: set the bounds, call the function, write what came of it, and end."""
    try:
        _limit()
        try:
            found = ("text", make())
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
            found = ("error", f"{type(error).__name__}: {error}"[:2000])
        data = json.dumps(found).encode()
        while data:
            data = data[os.write(writing, data) :]
    finally:
        os._exit(0)


def _limit() -> None:
    import resource

    seconds = max(1, round(SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with suppress(OSError, ValueError):  # where the system tells no size, or has no such limit
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))


def _heard(reading: int) -> bytes:
    """What the copy wrote; what it wrote so far if that is too long, or took too long."""
    parts, length, end = [], 0, time.monotonic() + PATIENCE * SECONDS
    while length <= LONGEST and (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
            length += len(part)
    return b""
