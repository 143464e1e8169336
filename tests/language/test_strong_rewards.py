"""Rewards that few families of texts have found: no error bar, where one would not cover; elsewhere it stays."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from motes.language import Generation, TableModel
from motes.language.generation import generation

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
"""A row after each of a, b, c, d, after the end (never used) and at the start."""
MOST = 7


def model() -> TableModel:
    return TableModel([*"abcd", "."], LAW.log())


def per_letter(letter: str, worth: float):
    return lambda texts: torch.tensor([worth * text.count(letter) for text in texts], dtype=torch.float64)


def truth(letter: str, worth: float) -> float:
    """log E exp(reward), letter by letter."""
    gain = torch.ones(4, dtype=torch.float64)
    gain["abcd".index(letter)] = math.exp(worth)
    mass, total = LAW[5, :4] * gain, float(LAW[5, 4])
    for length in range(1, MOST + 1):
        total += float((mass * LAW[:4, 4]).sum() if length < MOST else mass.sum())
        mass = (mass @ LAW[:4, :4]) * gain
    return math.log(total)


def bars(letter: str, worth: float, n: int, runs: int) -> tuple[int, int]:
    """How many runs print a bar, and how many of these cover."""
    printed = covered = 0
    for seed in range(runs):
        task = Generation(model(), "", reward=per_letter(letter, worth), max_tokens=MOST)
        run = motes.sample(task, n, seed=seed, progress=False)
        error = run.standard_error
        if not math.isnan(error.value):
            printed += 1
            covered += abs(run.log_evidence - truth(letter, worth)) <= error.reach()
    return printed, covered


@pytest.mark.filterwarnings("ignore::motes.core.errors.MotesWarning")
@pytest.mark.parametrize("n", [12, 80])
def test_a_reward_that_few_families_found_has_no_bar(n, monkeypatch):
    """Two nats for each d; in the broken twin one run in five prints a bar, and none of these covers."""
    printed, covered = bars("d", 2.0, n, 30)
    assert printed - covered <= 1
    monkeypatch.setattr(generation, "seen_by_few", lambda *_: None)
    printed, covered = bars("d", 2.0, n, 30)
    assert printed - covered >= 4


@pytest.mark.parametrize("n", [12, 80])
def test_a_mild_reward_keeps_its_bar(n):
    printed, covered = bars("b", 0.5, n, 20)
    assert printed >= 18 and covered >= 0.8 * printed


@pytest.mark.filterwarnings("ignore::motes.core.errors.MotesWarning")
def test_a_reward_that_no_text_earned_gives_no_means():
    never = Generation(model(), "", reward=lambda texts: torch.zeros(len(texts)), max_tokens=MOST)
    run = motes.sample(never, 8, seed=0, progress=False)
    assert math.isnan(float(run.mean(lambda texts: torch.tensor([float(len(t)) for t in texts])).se))


def test_what_decided_is_counted_in_families():
    """Forty copies of two finds are two families."""
    task = Generation(model(), "", reward=per_letter("d", 3.0), max_tokens=MOST)
    start = motes.sample(task, 40, seed=1, progress=False).particles
    found = torch.arange(40) < 20
    worth = torch.where(found, 6.0, torch.where(torch.arange(40) < 30, 3.0, 0.0)).double()

    def said(roots: int):
        root = torch.where(found, torch.arange(40) % roots, torch.arange(40))
        parts = {
            "log_weight": torch.zeros(40, dtype=torch.float64),
            "root": root,
            "x": {**start.x, "provisional": worth},
        }
        return generation.seen_by_few(task, type(start)(**{**vars(start), **parts}))

    few = said(2)
    assert few is not None and "2 families" in few.reason and few.means
    assert said(20) is None
