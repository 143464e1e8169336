"""What a runner is asked for and hands back, and where its chains start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PEERS = (
    "motes",
    "numpyro_vectorized",
    "numpyro_parallel",
    "blackjax_nuts",
    "blackjax_chees",
    "nutpie",
    "emcee",
)
"""Modules of this package whose `sample(name, job)` returns `Drawn`."""


@dataclass(frozen=True)
class Job:
    """How much to draw; a runner of many chains may divide the same number of draws among them.

    Attributes:
        draws: in all, after the warm-up.
        warmup: steps of each chain before them.
        chains: 0 is the runner's own number.
    """

    seed: int
    draws: int = 4000
    warmup: int = 1000
    chains: int = 0


@dataclass(frozen=True)
class Drawn:
    """Draws (chains, draws, d) of the real vector, and the gradients that they cost with the warm-up, if known."""

    draws: np.ndarray
    gradients: float | None = None


def start(log_density: Any, dim: int, n: int, seed: int) -> np.ndarray:
    """(n, dim) where chains start: uniform on (-2, 2), as Stan does, where value and gradient are finite."""
    import jax

    evaluate = jax.jit(jax.vmap(jax.value_and_grad(log_density)))
    rng, found = np.random.default_rng(seed), np.empty((0, dim))
    while len(found) < n:
        z = rng.uniform(-2, 2, (n, dim))
        value, gradient = evaluate(z)
        good = np.isfinite(value) & np.isfinite(gradient).all(1)
        found = np.concatenate([found, z[good]])
    return found[:n]
