"""Settings for all tests: one thread a process, the same examples every time."""

import sys
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

# derandomize draws the same examples in every run, so that a failure means a change;
# `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "motes", derandomize=True, max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("motes")
