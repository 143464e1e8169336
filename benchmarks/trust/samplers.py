"""The samplers of densities, at their documented defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.trust.target import Job, Sampler

import motes
from motes.core import FeynmanKac, Run
from motes.density import (
    AMIS,
    AnnealedImportanceSampling,
    DataAnnealing,
    NestedSampling,
    ParallelTempering,
    PersistentSampling,
    WasteFree,
)
from motes.laws import Law

PILOT = 1_000_000
"""Added to the seed of a run, the seed of its pilot."""
PER_CHAIN = 16
"""Particles that one chain stands for: `Chains` and `ParallelTempering` run N / 16 chains of their default length."""


def count(law: Law) -> Callable[[Run], float]:
    """Count the points at which this law is evaluated from now on, with a gradient or without."""
    points, inside = [0], [False]

    def counted(inner: Callable[..., Any]) -> Callable[..., Any]:
        def f(z: Any, *args: Any, **more: Any) -> Any:
            if inside[0]:  # one way of evaluating may call the other
                return inner(z, *args, **more)
            points[0] += len(z)
            inside[0] = True
            try:
                return inner(z, *args, **more)
            finally:
                inside[0] = False

        return f

    law.evaluate, law.trial = counted(law.evaluate), counted(law.trial)  # type: ignore[method-assign]
    return lambda run: float(points[0])


def weighted(
    make: Callable[[Law], FeynmanKac], particles: int = 1, **options: Any
) -> Callable[[Callable[[], Law]], Sampler]:
    """A sampler of the shelf, from a function of a density: N / `particles` particles, and options of `sample`."""

    def on_density(density: Callable[[], Law]) -> Sampler:
        def job(n: int, seed: int) -> Job:
            law = density()
            return Job(make(law), n // particles, options, count(law))

        return job

    return on_density


def frozen(density: Callable[[], Law]) -> Sampler:
    """Tempering on the ladder of a pilot with as many particles, whose evaluations count."""

    def job(n: int, seed: int) -> Job:
        law = density()
        spent, adaptive = count(law), motes.Tempering(law)
        return Job(adaptive.freeze(motes.sample(adaptive, n, seed=PILOT + seed, progress=False)), n, evaluations=spent)

    return job


BY_DENSITY: dict[str, Callable[[Callable[[], Law]], Sampler]] = {
    "Tempering": weighted(motes.Tempering),
    "Tempering-frozen": frozen,
    "WasteFree": weighted(WasteFree),
    "PersistentSampling": weighted(PersistentSampling),
    "AIS": weighted(AnnealedImportanceSampling),
    "AMIS": weighted(AMIS),
    "NestedSampling": weighted(NestedSampling),
    "ParallelTempering": weighted(ParallelTempering, PER_CHAIN),
    "Chains": weighted(motes.Chains, PER_CHAIN),
    "Tempering-x8": weighted(motes.Tempering, replicas=8),
}


def on(
    density: Callable[[], Law], *, without: tuple[str, ...] = (), data: Callable[[], DataAnnealing] | None = None
) -> Mapping[str, Sampler]:
    """All samplers on a density that `density` makes anew for every run, except those named.

    Args:
        without: samplers that the documentation does not offer for such a target.
        data: where the likelihood is one of independent observations, the same with these one by one.
    """
    found = {name: make(density) for name, make in BY_DENSITY.items() if name not in without}
    if data is not None:
        found["DataAnnealing"] = lambda n, seed: Job(data(), n)
    return found
