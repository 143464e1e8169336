"""Runs of motes on the targets of the evidence benchmark, with evaluations counted around the density."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from benchmarks._evidence_targets import TARGETS, Target
from torch import Tensor
from torch.distributions import Normal, Uniform

import motes
from motes.core import FeynmanKac
from motes.density import NestedSampling, WasteFree
from motes.kernels import State
from motes.laws import Law

PILOT = 1_000_000
"""Seed of the pilots: of ladders that are frozen, and of the numbers of particles."""
N = 1000
LARGEST_NESTED = 10
"""Dimensions above which nested sampling is not run."""


class Counted(Law):
    """A law that counts at how many points it was evaluated, without and with gradients."""

    def __init__(self, inner: Law):
        self.inner = inner
        self.dim, self.dtype, self.differentiable = inner.dim, inner.dtype, inner.differentiable
        self.compile, self.levels = inner.compile, inner.levels
        self.reset()

    def reset(self) -> None:
        self.values, self.gradients = 0, 0

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        if gradient:
            self.gradients += len(z)
        else:
            self.values += len(z)
        return self.inner.evaluate(z, gradient, compiled)

    def sample(self, rng: motes.Rng, n: int) -> Tensor:
        return self.inner.sample(rng, n)

    def constrain(self, z: Tensor) -> Any:
        return self.inner.constrain(z)

    def unconstrain(self, values: Any) -> Tensor:
        return self.inner.unconstrain(values)

    def settings(self) -> dict[str, Any]:
        return self.inner.settings()


def plain(target: Target) -> motes.Density:
    """The target as a density."""
    arrays = SimpleNamespace(
        asarray=lambda v: torch.as_tensor(v, dtype=torch.float64),
        exp=torch.exp,
        logsumexp=lambda v: torch.logsumexp(v, -1),
    )
    one = torch.ones(target.dim, dtype=torch.float64)
    prior = Uniform(-target.scale * one, target.scale * one) if target.box else Normal(0 * one, target.scale)
    return motes.Density(target.likelihood(arrays), prior, vectorised=True)


def density(target: Target) -> Counted:
    """The target as a density that counts its evaluations."""
    return Counted(plain(target))


def model(method: str, law: Counted) -> tuple[FeynmanKac, int]:
    """The sampler of that name and its number of particles; pilots are run here and not counted."""
    if method == "Tempering":
        return motes.Tempering(law), N
    if method == "Tempering, frozen":
        adaptive = motes.Tempering(law)
        return adaptive.freeze(motes.sample(adaptive, N, seed=PILOT, progress=False)), N
    if method == "WasteFree":
        return WasteFree(law), 10 * N
    return NestedSampling(law), N // 2


METHODS = {"Tempering": 1000, "Tempering, frozen": 1000, "WasteFree": 1000, "NestedSampling": LARGEST_NESTED}
"""The samplers, and the dimensions above which they are not run."""


def main(key: str, method: str, seeds: int, path: str) -> None:
    """Run a method on a target with so many seeds; each run a row of JSON."""
    target, rows = TARGETS[key](), []
    torch.set_num_threads(1)
    law = density(target)
    sampler, n = model(method, law)
    for seed in range(seeds):
        law.reset()
        began = time.process_time()
        run = motes.sample(sampler, n, seed=seed, progress=False)
        seconds = time.process_time() - began
        points = law.values + law.gradients
        rows.append({"log_z": run.log_evidence, "se": run.log_evidence_se, "points": points, "seconds": seconds})
    Path(path).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
