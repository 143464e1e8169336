"""Language models whose texts can be counted, and the samplers of texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from benchmarks.trust.target import Job, Sampler, Truth
from torch import Tensor

import motes
from motes.core import FeynmanKac, Run
from motes.language import DiscreteParticleFilter, Generation, ResampleMove, TableModel

LETTERS = ["a", "b", "c", "d", "."]
LAW = torch.tensor(
    [
        [0.30, 0.40, 0.10, 0.05, 0.15],
        [0.45, 0.10, 0.25, 0.05, 0.15],
        [0.20, 0.20, 0.20, 0.20, 0.20],
        [0.05, 0.05, 0.50, 0.20, 0.20],
        [0.20, 0.20, 0.20, 0.20, 0.20],
        [0.50, 0.30, 0.15, 0.03, 0.02],
    ],
    dtype=torch.float64,
)
"""A row after each letter, after the end (never used) and at the start."""
MOST = 7
Worth = Callable[[str], float]


def table() -> TableModel:
    return TableModel(LETTERS, LAW.log())


def texts() -> Iterable[tuple[str, float]]:
    """Every text of the table of at most `MOST` letters, with its probability."""
    for length in range(MOST + 1):
        for letters in itertools.product(range(4), repeat=length):
            p, at = 1.0, -1
            for v in letters:
                p, at = p * float(LAW[at, v]), v
            yield "".join(LETTERS[v] for v in letters), p * (float(LAW[at, 4]) if length < MOST else 1.0)


def tilted(laws: Iterable[tuple[str, float]], worth: Worth, functions: Mapping[str, Worth]) -> Truth:
    """The truth of texts with these probabilities, tilted by exp(worth); a worth of -inf forbids one."""
    total, sums = 0.0, dict.fromkeys(functions, 0.0)
    for text, p in laws:
        weight = p * math.exp(worth(text))
        total += weight
        for name, f in functions.items():
            sums[name] += weight * f(text)
    return Truth(math.log(total), {name: s / total for name, s in sums.items()})


def each(f: Worth) -> Callable[[list[str]], Tensor]:
    """A function of one text as one of many."""
    return lambda texts: torch.tensor([float(f(text)) for text in texts], dtype=torch.float64)


def evaluated(run: Run) -> float:
    """The texts that the model was asked about."""
    return float(run.trace["evaluated"].sum()) if "evaluated" in run.trace else math.nan


def sampler(make: Callable[[], FeynmanKac]) -> Sampler:
    return lambda n, seed: Job(make(), n, evaluations=evaluated)


def under_constraint(make: Callable[[type], FeynmanKac]) -> dict[str, Sampler]:
    """The samplers of texts that satisfy a constraint; `make` makes one of a class."""
    return {
        "Generation": sampler(lambda: make(Generation)),
        "DiscreteParticleFilter": sampler(lambda: make(DiscreteParticleFilter)),
    }


def under_reward(make: Callable[..., Generation]) -> dict[str, Sampler]:
    """The samplers of texts with a reward; `make` takes options of a generation."""
    return {
        "Generation": sampler(make),
        "Generation-steered": sampler(lambda: make(steer=1)),
        "ResampleMove-tempered": sampler(lambda: ResampleMove(make(), temper=True)),
    }


def smollm2() -> motes.language.LanguageModel:
    """The real model, read once."""
    global _SMOLLM2
    if _SMOLLM2 is None:
        _SMOLLM2 = motes.language.load("smollm2")
    return _SMOLLM2


_SMOLLM2: motes.language.LanguageModel | None = None
