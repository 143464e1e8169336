"""Temperatures where the largest weights fall off slowly: the bound on their shape, and what it mends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from motes.core.temperature import SHAPE, mean_excess, next_temperature
from motes.rng import Rng

F = torch.float64
D, FREEDOM, N = 10, 3.0, 256
GRID = torch.linspace(math.log(1e-2), math.log(1e6), 4_001, dtype=F)
"""Logarithms of squared radii."""


def log_ratio(square: Tensor) -> Tensor:
    """Student's t over a standard normal law, both in D dimensions, at squared radii: the log evidence is 0."""
    constant = math.lgamma((FREEDOM + D) / 2) - math.lgamma(FREEDOM / 2) - 0.5 * D * math.log(FREEDOM / 2)
    return constant - 0.5 * (FREEDOM + D) * torch.log1p(square / FREEDOM) + 0.5 * square


def log_evidence(rng: Rng, shape: float) -> float:
    """The estimate of a tempering run that draws from each of its laws exactly."""
    now, found, square = 0.0, 0.0, GRID.exp()
    while now < 1:
        density = torch.softmax(0.5 * D * GRID - 0.5 * square + now * log_ratio(square), 0)
        u = rng.at("radius", inner=int(1e9 * now)).uniform((N,))
        likelihood = log_ratio(square[torch.searchsorted(density.cumsum(0), u).clamp(max=len(GRID) - 1)])
        then = next_temperature(torch.zeros(N, dtype=F), likelihood, now, 0.9, shape)
        found += float(torch.logsumexp((then - now) * likelihood, 0)) - math.log(N)
        now = then
    return found


@pytest.mark.parametrize(("shape", "seeds"), [(SHAPE, 60), (math.inf, 300)])
def test_the_evidence_of_a_heavy_tail_from_a_light_one(shape, seeds):
    """Less than a standard error of 256 particles (0.045) too low; without the bound more."""
    found = torch.tensor([log_evidence(Rng(s), shape) for s in range(seeds)], dtype=F)
    reach = 4.9 * float(found.std()) / math.sqrt(seeds)
    assert reach < 0.03
    if shape == SHAPE:
        assert abs(float(found.mean())) < 0.045
    else:
        assert float(found.mean()) < -0.045


def test_a_light_tail_has_the_temperature_that_it_had():
    flat = torch.zeros(N, dtype=F)
    for seed in range(50):
        z = Rng(seed).normal((N, 10))
        for likelihood in (-30 * (z - 2).square().sum(1), -5 * z[:, 0].abs(), z[:, 0]):
            assert next_temperature(flat, likelihood, 0.0, 0.9, SHAPE) == next_temperature(flat, likelihood, 0.0, 0.9)


def test_the_shape_of_a_heavy_tail_is_bounded():
    flat, weight = torch.zeros(N, dtype=F), torch.full((N,), 1 / N, dtype=F)
    exponential = -Rng(1).at("e").uniform((N,)).log()
    excess = mean_excess(weight, exponential)
    assert abs(excess - 1) < 0.7  # an exponential law has no memory
    rise = next_temperature(flat, 7 * exponential, 0.2, 0.9, SHAPE) - 0.2
    assert rise == pytest.approx(SHAPE / (7 * excess))
    assert next_temperature(flat, 7 * exponential, 0.2, 0.9) - 0.2 > 1.5 * rise
    assert mean_excess(weight, flat) == 0.0 and mean_excess(weight[:1], flat[:1]) == 0.0
    assert next_temperature(flat, 0.01 * exponential, 0.2, 0.9, SHAPE) == 1.0
