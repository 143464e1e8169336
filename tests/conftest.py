"""Settings for all tests: one thread a process, the same examples every time."""

import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
# A shell that starts tests in the background has them ignore Ctrl-C, and so would the processes that are sent it here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# derandomize draws the same examples in every run, so that a failure means a change;
# `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "motes", derandomize=True, max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("motes")

CPU_LIMIT = 600
"""Seconds of CPU time that one test may take; by the clock it may take any time, since the machine may be busy."""


@pytest.fixture(autouse=True)
def whole_process() -> Iterator[None]:
    """Fail a test that leaves a setting of the whole process other than it was."""

    def settings() -> dict[str, object]:
        return {
            "distributions check their arguments": torch.distributions.Distribution._validate_args,
            "default dtype": torch.get_default_dtype(),
            "threads": torch.get_num_threads(),
            "gradients": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "state of NumPy's generator": hash(np.random.get_state()[1].tobytes()),  # noqa: NPY002
            "state of Python's generator": hash(random.getstate()),
        }

    before = settings()
    yield
    assert settings() == before


@pytest.fixture(autouse=True)
def cpu_limit() -> Iterator[None]:
    """Fail a test that runs in circles."""

    def stop(*_: object) -> None:
        pytest.fail(f"more than {CPU_LIMIT} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
