"""Golden runs of language: a table of three letters, under rules, constraints, rewards and searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import motes
from motes import language
from motes.language.search import Arithmetic

Runs = dict[str, Callable[[], tuple[Any, int, int]]]
TABLE = [[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.25, 0.05]]


def table() -> language.TableModel:
    """Rows: after "a", after "b", after the end (never used), at the start."""
    return language.TableModel(["a", "b", "."], torch.tensor(TABLE, dtype=torch.float64).log())


def count(texts: list[str]) -> torch.Tensor:
    return torch.tensor([0.5 * text.count("b") for text in texts], dtype=torch.float64)


def generation(**settings: Any) -> motes.Generation:
    return motes.Generation(table(), "", **{"max_tokens": 6, **settings})


RUNS: Runs = {
    "Generation": lambda: (generation(), 32, 4),
    "Generation with a reward on the way": lambda: (generation(reward=count, steer=1), 32, 4),
    "Generation under a regular expression": lambda: (generation(constraint=language.regex("(ab)*a?")), 32, 4),
    "Generation under a predicate": lambda: (generation(constraint=language.predicate(lambda t: "bb" not in t)), 32, 4),
    "Generation that looks ahead": lambda: (generation(reward=count, twist=count, lookahead=2), 32, 4),
    "DiscreteParticleFilter": lambda: (
        language.DiscreteParticleFilter(table(), "", reward=count, steer=1, max_tokens=6),
        8,
        3,
    ),
    "ResampleMove": lambda: (language.ResampleMove(generation(reward=count)), 16, 5),
    "Arithmetic": lambda: (Arithmetic(table(), "", max_tokens=6), 16, 4),
    "SpeculativeGeneration": lambda: (language.SpeculativeGeneration(generation(), table(), tokens=2), 16, 3),
}
