"""Resampling and the engine, by walking every outcome: unbiased to 1e-12."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from breaks import breaks
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import schemes
from motes.core.smc import steps
from motes.testing import check_model, check_scheme, enumerate_runs


@pytest.mark.parametrize("name", schemes)
def test_a_scheme_keeps_its_laws(name):
    check_scheme(name)


class TwoStates(FeynmanKac):
    """A hidden Markov model on {0, 1}; draws are categorical, so that they can be walked."""

    start, move = (0.3, 0.7), ((0.8, 0.2), (0.35, 0.65))
    likelihood = ((0.9, 0.15), (0.05, 0.6), (0.7, 0.25))

    def __init__(self, steps: int):
        self.steps = steps

    def init(self, rng, n):
        x = rng.at("x").categorical(torch.tensor([self.start], dtype=torch.float64).log().expand(n, 2))
        return Particles.start(x, self.log_potential(x, 0))

    def step(self, rng, particles):
        x = rng.at("x").categorical(torch.tensor(self.move, dtype=torch.float64).log()[particles.x])
        return particles.step(x, self.log_potential(x, particles.t + 1))

    def log_potential(self, x, t):
        return torch.tensor(self.likelihood[t % 3], dtype=torch.float64).log()[x]

    def done(self, particles):
        return particles.t >= self.steps - 1

    def order(self, particles):
        return particles.x.double()

    def evidence(self) -> float:
        total = 0.0
        for path in itertools.product((0, 1), repeat=self.steps):
            p = self.start[path[0]] * self.likelihood[0][path[0]]
            for t in range(1, self.steps):
                p *= self.move[path[t - 1]][path[t]] * self.likelihood[t % 3][path[t]]
            total += p
        return total


@pytest.mark.parametrize(
    ("n", "length", "ess_threshold"),
    [(n, t, ess_threshold) for n, t in [(2, 2), (2, 3)] for ess_threshold in (0.0, 0.5, 1.0)]
    + [(3, 2, 0.5)]
    + [pytest.param(3, t, 1.0, marks=pytest.mark.slow) for t in (2, 3)],
)
@pytest.mark.parametrize("name", schemes)
def test_evidence_is_unbiased(name, ess_threshold, n, length):
    if name == "killing" and n == length == 3:
        pytest.skip("27 outcomes at each of 64 nodes: an hour")
    check(TwoStates(length), n, name, ess_threshold)


def check(model, n, scheme, ess_threshold):
    truth = math.log(model.evidence())
    check_model(model, n=n, log_evidence=truth, resampling=scheme, ess_threshold=ess_threshold, laws=["evidence"])


def test_the_engine_with_the_scheme_itself():
    """Without the shortcut that walks a scheme once for each weights: uniform numbers are walked inside the engine."""
    model = TwoStates(2)

    def evidence(rng) -> float:
        *_, last = steps(model, 2, seed=rng, ess_threshold=1.0)
        return math.exp(last.particles.log_evidence)

    assert math.fsum(p * z for p, z in enumerate_runs(evidence)) == pytest.approx(model.evidence(), abs=1e-12)


def test_a_wrong_engine_is_noticed():
    """The broken twin: parents chosen by the square of the weights."""
    right = schemes["multinomial"]
    squared = replace(right, function=lambda rng, w, n: right.function(rng, 2 * w, n))
    with breaks("evidence"):
        check(TwoStates(2), 2, squared, 1.0)
