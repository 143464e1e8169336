"""A coin's bias from 14 throws, Beta(2, 2) before; the posterior is Beta(11, 7).

The evidence is B(11, 7) / B(2, 2), of the throws in their order.
"""

from __future__ import annotations

import torch
from benchmarks.trust.samplers import on
from benchmarks.trust.target import Target, Truth
from scipy.special import betaln
from torch.distributions import Bernoulli, Beta

import motes
from motes.density import DataAnnealing

HEADS, TAILS = 9, 5


def truth() -> Truth:
    a, b = 2 + HEADS, 2 + TAILS
    mean, variance = a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
    return Truth(float(betaln(a, b) - betaln(2, 2)), {"p": mean, "p^2": mean**2 + variance})


def prior() -> dict[str, Beta]:
    two = torch.tensor(2.0, dtype=torch.float64)
    return {"p": Beta(two, two)}


def density() -> motes.Density:
    return motes.Density(lambda v: HEADS * v["p"].log() + TAILS * (-v["p"]).log1p(), prior(), vectorised=True)


def one_by_one() -> DataAnnealing:
    throws = torch.tensor([1.0] * HEADS + [0.0] * TAILS, dtype=torch.float64)
    return DataAnnealing(
        lambda v, y: Bernoulli(v["p"][:, None]).log_prob(y), prior(), throws[torch.arange(14) * 5 % 14], vectorised=True
    )


TARGETS = [
    Target(
        "coin",
        "Bias of a coin, 14 throws",
        truth,
        {"p": "p", "p^2": lambda v: v["p"] ** 2},
        on(density, data=one_by_one),
        easy=True,
    )
]
