"""Degrees of freedom of means: where few particles make the spread they count, and not all that are alike."""

from __future__ import annotations

import math

import pytest
import torch

from motes.core.estimate import student, variance
from motes.core.estimate.variance import mean_se
from motes.core.history.genealogy import Genealogy
from motes.core.particles import Particles

N, P = 32, 0.12


def population(n: int) -> Particles:
    return Particles.start({}, torch.zeros(n, dtype=torch.float64))


def covers(met: int, freedom: float | None = None) -> bool:
    """Whether the 95 % interval of a run, `met` of whose N particles have met the event, holds its probability."""
    value = torch.zeros(N, dtype=torch.float64)
    value[:met] = 1
    particles, families = population(N), Genealogy.start(N)
    se = float(mean_se(value, particles.log_weight, families)[0])
    told = mean_se(value, particles.log_weight, families)[2] if freedom is None else freedom
    return abs(met / N - P) <= student.quantile(0.95, told) * se


def test_the_share_of_an_event_that_few_have_met_is_covered():
    """Over all numbers of particles that meet it, but none: .99; with N - 1 degrees, the broken twin, .92."""
    law = [math.comb(N, k) * P**k * (1 - P) ** (N - k) for k in range(1, N)]
    held, twin = (sum(p for k, p in enumerate(law, 1) if covers(k, freedom)) / sum(law) for freedom in (None, N - 1.0))
    assert held > 0.95 > 0.93 > twin


def test_a_single_particle_gives_about_two_degrees_and_a_normal_value_all():
    value = torch.zeros(N, dtype=torch.float64)
    value[3] = 1
    assert mean_se(value, population(N).log_weight, Genealogy.start(N))[2] == pytest.approx(2, abs=0.3)
    normal = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    assert mean_se(normal, population(1000).log_weight, Genealogy.start(1000))[2] > 900
    assert mean_se(torch.ones(N).double(), population(N).log_weight, Genealogy.start(N))[2] == N - 1
    many = torch.stack([value, value], 1)  # several numbers at once: the families alone
    assert mean_se(many, population(N).log_weight, Genealogy.start(N))[2] == N - 1


def test_a_value_that_light_particles_alone_have_is_not_taken_for_rare(monkeypatch):
    """Of 32 texts one of hardly any weight begins otherwise: others may too. Twin: its own spread is the error."""
    log_weight = torch.zeros(N, dtype=torch.float64)
    log_weight[3] = -6
    particles, families = Particles.start({}, log_weight), Genealogy.start(N)
    value = torch.zeros(N, dtype=torch.float64)
    value[3] = 1
    mean = float(torch.softmax(log_weight, 0) @ value)
    se = float(mean_se(value, particles.log_weight, families)[0])
    assert mean < 1e-3 and se == pytest.approx((1 - mean) / (N - 1), rel=0.01)
    assert mean_se(value, particles.log_weight, families)[2] == variance.ALONE
    many = torch.stack([value, torch.linspace(-1, 1, N).double()], 1)  # a number of its own for each: its spread tells
    assert float(mean_se(many, particles.log_weight, families)[0][0]) == se
    spread = float(mean_se(many[:, 1], particles.log_weight, families)[0])
    monkeypatch.setattr(variance, "_least", lambda value, weight, slot: torch.zeros(value.shape[1]))
    assert float(mean_se(value, particles.log_weight, families)[0]) < 1e-3
    assert float(mean_se(many, particles.log_weight, families)[0][1]) == spread


def test_a_far_draw_of_a_wide_prior_is_no_sign_of_more(monkeypatch):
    """A weight of e^-20 at a value of 10^4, and 31 like each other; twin: any weight counts, and the error is 300."""
    log_weight, value = torch.zeros(N, dtype=torch.float64), torch.linspace(-1, 1, N).double()
    log_weight[3], value[3] = -20, 1e4
    particles, families = Particles.start({}, log_weight), Genealogy.start(N)
    assert float(mean_se(value, particles.log_weight, families)[0]) < 0.2
    monkeypatch.setattr(variance, "LIGHT", 0.0)
    assert float(mean_se(value, particles.log_weight, families)[0]) > 300


def test_copies_of_a_family_are_told_apart_by_their_values():
    """Two families of 16: as two for an event that all of a family meet, as 32 for numbers that moves made differ."""
    slot, even = torch.arange(N) // 16, torch.full((N,), 1 / N, dtype=torch.float64)
    event, number = (slot == 0).double(), torch.linspace(-1, 1, N).double()
    least = variance._least(torch.stack([event, number], 1), even, slot)
    assert least.tolist() == pytest.approx([0.5 / 2, 1 / N])
