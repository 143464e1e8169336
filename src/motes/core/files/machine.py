"""What the last bits of a run depend on besides the seed: how many threads, which processor, which versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """JSON for `run.setup`: versions, the threads that PyTorch uses, and the instructions that it chose."""
    return {
        "versions": {"motes": version("motes"), "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def differences(setup: dict[str, Any]) -> str:
    """What is not as it was when a run with this setup began, in words; empty where its bits can be the same."""
    now = machine()
    then = {**setup, **setup["versions"]}
    pairs = {"threads of PyTorch": "threads", "instructions of the processor": "cpu"}
    said = [f"{what}: {then[k]} then, {now[k]} now" for what, k in pairs.items() if then[k] != now[k]]
    for package in ("motes", "torch"):
        if then.get(package) != now["versions"][package]:
            said.append(f"{package}: {then.get(package)} then, {now['versions'][package]} now")
    return "; ".join(said)
