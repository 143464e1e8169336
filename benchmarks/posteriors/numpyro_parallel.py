"""NumPyro's NUTS with its defaults, each of four chains a program of its own."""

from __future__ import annotations

from benchmarks.posteriors import numpyro_vectorized
from benchmarks.posteriors.drawn import Drawn, Job


def sample(name: str, job: Job) -> Drawn:
    return numpyro_vectorized.sample(name, job, "parallel")
