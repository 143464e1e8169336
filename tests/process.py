"""Python processes for tests, stopped by the time they compute and never by the clock: a busy machine fails nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

LIMIT = 600
"""Seconds of CPU time after which a process is taken to run in circles."""


def python(
    *arguments: str, folder: Path | None = None, limit: int = LIMIT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` printed and returned; the system ends it after `limit` seconds of CPU time."""
    command = ["sh", "-c", f'ulimit -S -t {limit}; exec "$@"', "sh", sys.executable, *arguments]
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode != -signal.SIGXCPU, f"more than {limit} s of CPU time, with {done.stderr[-2000:]}"
    return done
