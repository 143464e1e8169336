"""Resampling and the engine, by walking every outcome: unbiased to 1e-12."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import schemes
from motes.core.smc import steps
from motes.testing import enumerate_runs

INF = math.inf
LOG_WEIGHTS = {
    "uneven": (0.3, -1.2, 0.9),
    "equal": (-2.0, -2.0, -2.0),
    "one dead": (-INF, 0.1, 0.0),
    "one alive": (-INF, 3.0, -INF),
    "far apart": (0.0, -1e300, -40.0),
    "alone": (0.7,),
}


@cache
def outcomes(name: str, log_weight: tuple[float, ...], n: int | None, order: tuple[float, ...] | None):
    """{parents: probability} of a scheme."""
    w = torch.tensor(log_weight, dtype=torch.float64)
    more = {} if n is None else {"n": n}
    if order is not None:
        more["order"] = torch.tensor(order, dtype=torch.float64)
    law: dict[tuple[int, ...], float] = {}
    for p, parent in enumerate_runs(lambda rng: tuple(schemes[name](rng, w, **more).tolist())):
        law[parent] = law.get(parent, 0.0) + p
    return law


def law_of(name: str, log_weight: tuple[float, ...], n: int | None = None):
    order = tuple(math.sin(5 * i) for i in range(len(log_weight))) if schemes[name].needs_order else None
    return outcomes(name, log_weight, n, order)


def bias(law: dict[tuple[int, ...], float], log_weight: tuple[float, ...], n: int) -> float:
    """The largest |E[children of i] - n W_i|."""
    weight = torch.softmax(torch.tensor(log_weight, dtype=torch.float64), 0).tolist()
    return max(abs(math.fsum(p * parent.count(i) for parent, p in law.items()) - n * w) for i, w in enumerate(weight))


@pytest.mark.parametrize("case", LOG_WEIGHTS)
@pytest.mark.parametrize("name", schemes)
def test_offspring_are_unbiased(name, case):
    w = LOG_WEIGHTS[case]
    law = law_of(name, w)
    assert math.fsum(law.values()) == pytest.approx(1, abs=1e-14)
    assert bias(law, w, len(w)) < 1e-12


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("name", [s.name for s in schemes.values() if not s.same_n])
def test_offspring_are_unbiased_in_other_numbers(name, n):
    w = LOG_WEIGHTS["uneven"]
    assert bias(law_of(name, w, n), w, n) < 1e-12


def test_a_biased_scheme_is_noticed():
    """The broken twin: children at (j + U) with the last quarter of U cut off."""

    def cut(rng, log_weight, n):
        return torch.searchsorted(
            torch.softmax(log_weight, 0).cumsum(0) * n, torch.arange(n) + 0.75 * rng.uniform(()), right=True
        )

    w = LOG_WEIGHTS["uneven"]
    law = {}
    for p, parent in enumerate_runs(lambda rng: tuple(cut(rng, torch.tensor(w, dtype=torch.float64), 3).tolist())):
        law[parent] = law.get(parent, 0.0) + p
    assert bias(law, w, 3) > 1e-2


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


def collapsed(name: str):
    """The scheme with its whole draw as one decision among its outcomes, whose law was walked once for each weights.

    The walk through the engine then need not look for the breakpoints of uniform numbers at every node again.
    """

    def draw(rng, log_weight, n, order=None):
        key = tuple((log_weight - log_weight.max()).tolist())
        law = outcomes(name, key, None, None if order is None else tuple(order.tolist()))
        parents = list(law)
        pick = rng.at("outcome").categorical(torch.tensor([law[p] for p in parents], dtype=torch.float64).log())
        return torch.tensor(parents[int(pick)])

    return replace(schemes[name], function=draw)


def mean_evidence(model: FeynmanKac, n: int, scheme, ess_threshold: float) -> tuple[float, float]:
    """E[Z_hat] and the total probability."""

    def evidence(rng) -> float:
        *_, last = steps(model, n, seed=rng, resampling=scheme, ess_threshold=ess_threshold)
        return math.exp(last.particles.log_evidence)

    found = list(enumerate_runs(evidence))
    return math.fsum(p * z for p, z in found), math.fsum(p for p, _ in found)


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
    model = TwoStates(length)
    mean, mass = mean_evidence(model, n, collapsed(name), ess_threshold)
    assert mass == pytest.approx(1, abs=1e-12)
    assert mean == pytest.approx(model.evidence(), abs=1e-12)


def test_the_engine_with_the_scheme_itself():
    """Without the shortcut of `collapsed`: uniform numbers are walked inside the engine."""
    model = TwoStates(2)
    mean, mass = mean_evidence(model, 2, "systematic", 1.0)
    assert mass == pytest.approx(1, abs=1e-12)
    assert mean == pytest.approx(model.evidence(), abs=1e-12)


def test_a_wrong_engine_is_noticed():
    """The broken twin: parents chosen by the square of the weights."""
    squared = replace(
        collapsed("multinomial"), function=lambda rng, w, n: collapsed("multinomial").function(rng, 2 * w, n)
    )
    mean, _ = mean_evidence(TwoStates(2), 2, squared, 1.0)
    assert abs(mean - TwoStates(2).evidence()) > 1e-3
