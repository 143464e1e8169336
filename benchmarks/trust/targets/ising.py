"""The Ising torus, 16 x 16, at the critical point, against Kaufman's partition function.

The energy is the derivative of log Z by the inverse temperature; by symmetry the mean magnetisation is zero, which a
run only finds whose spins turn over.
"""

from __future__ import annotations

import math

import numpy as np
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from torch import Tensor

from motes.laws import Discrete

CRITICAL = math.log(1 + math.sqrt(2)) / 2
SIZE = 16


def kaufman(size: int, beta: float) -> float:
    """log Z of the size x size torus with couplings 1 (Kaufman 1949)."""
    angle = math.pi * np.arange(2 * size) / size
    g = np.arccosh(np.maximum(1.0, math.cosh(2 * beta) ** 2 / math.sinh(2 * beta) - np.cos(angle)))
    g[0] = 2 * beta + math.log(math.tanh(beta))  # with its sign
    half, log_cosh, log_sinh = size * g / 2, [], []
    for rows in (half[1::2], half[0::2]):
        log_cosh.append(float(np.logaddexp(rows, -rows).sum()))
        log_sinh.append(float(np.log(np.abs(2 * np.sinh(rows)) + 1e-300).sum()))
    signs = [1.0, 1.0, 1.0, math.copysign(1.0, g[0])]
    top = max(log_cosh)
    terms = [log_cosh[0], log_sinh[0], log_cosh[1], log_sinh[1]]
    total = sum(s * math.exp(t - top) for s, t in zip(signs, terms, strict=True))
    return math.log(0.5 * total) + top + size * size / 2 * math.log(2 * math.sinh(2 * beta))


def energy(beta: float, size: int = SIZE) -> float:
    """The mean of `bonds`."""
    return (kaufman(size, beta + 1e-5) - kaufman(size, beta - 1e-5)) / 2e-5


def bonds(x: Tensor, size: int) -> Tensor:
    """The sum over bonds of the product of their spins."""
    spin = (2 * x - 1).view(-1, size, size)
    return (spin * (spin.roll(1, 1) + spin.roll(1, 2))).sum((1, 2))


def torus(size: int, beta: float) -> Discrete:
    return Discrete(lambda x: beta * bonds(x, size), size * size)


def truth() -> Truth:
    sites = SIZE * SIZE
    log_z = kaufman(SIZE, CRITICAL) - sites * math.log(2)
    return Truth(log_z, {"energy": energy(CRITICAL) / sites, "magnetisation": 0.0})


TARGETS = [
    Target(
        "ising-16",
        "Ising, 16 x 16, at the critical point",
        truth,
        {
            "energy": lambda x: bonds(x, SIZE) / SIZE**2,
            "magnetisation": lambda x: (2 * x - 1).mean(1),
        },
        on(lambda: torus(SIZE, CRITICAL), without=("AMIS",)),
    )
]
