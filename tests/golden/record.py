"""What is kept of a golden run, and how it is compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import motes
from motes.core import tree
from motes.core.particles import Particles

FILE = Path(__file__).parent / "runs.json"

Make = Callable[[], Any]


def kind() -> dict[str, str]:
    """What the last bits of a run depend on besides its seed: a machine of the same kind gives the same bits."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": names[0] if names else "unknown",
    }


def numbers(particles: Particles) -> Iterator[tuple[str, Tensor]]:
    """The log-weights, the parents, and every tensor of the particles."""
    yield "log_weight", particles.log_weight
    yield "ancestor", particles.ancestor
    for where, leaf in tree.leaves(particles.x):
        if isinstance(leaf, Tensor):
            yield where, leaf


def digest(particles: Particles) -> str:
    """The bits of a population, in sixteen letters."""
    h = hashlib.sha256()
    for where, value in numbers(particles):
        h.update(f"{where} {value.dtype} {tuple(value.shape)}".encode())
        h.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return h.hexdigest()[:16]


def summary(particles: Particles) -> dict[str, float]:
    """The mean of every tensor of numbers, before anything has been decided by them."""
    means = {where: v.double() for where, v in numbers(particles) if v.numel()}
    return {where: float(v[v.isfinite()].mean()) if bool(v.isfinite().any()) else 0.0 for where, v in means.items()}


def record(make: Make) -> dict[str, Any]:
    """One golden run: its start as numbers, and the bits of the population after each step."""
    model, n, steps = make()
    populations = [state.particles for state in islice(motes.steps(model, n, seed=7), steps + 1)]
    return {"start": summary(populations[0]), "bits": [digest(p) for p in populations]}


def read() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def write(runs: dict[str, Make]) -> None:
    """Write all golden runs anew."""
    found = {name: record(make) for name, make in sorted(runs.items())}
    FILE.write_text(json.dumps({"machine": kind(), "runs": found}, indent=1) + "\n")
