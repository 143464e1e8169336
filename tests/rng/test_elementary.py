"""log, exp, sqrt, log k! and the normal quantile against mpmath, and the shape of the uniform grid."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from motes.rng import Rng
from motes.rng.discrete import log_factorial
from motes.rng.elementary import exp, log, sqrt
from motes.rng.normal import normal64
from motes.rng.uniform import uniform32, uniform64

mpmath.mp.dps = 40
U = Rng(1).at("places").uniform((800,))
TINY = 2.0 ** -torch.linspace(1, 53, 400, dtype=torch.float64)
"""Probabilities down to the smallest that a draw can have."""


def relative(found: Tensor, x: Tensor, must) -> float:
    """The largest relative error against a function in 40 digits."""
    truth = [must(mpmath.mpf(v)) for v in x.tolist()]
    return max(float(abs((mpmath.mpf(f) - t) / t)) for f, t in zip(found.tolist(), truth, strict=True) if t)


def test_log() -> None:
    x = torch.cat([U, TINY, U * 1e6, 1.0 + (U - 0.5) * 1e-9, 10.0 ** ((U - 0.5) * 600)])
    assert relative(log(x), x, mpmath.log) < 2.3e-16
    assert log(torch.ones((), dtype=torch.float64)) == 0.0
    assert relative(torch.log(x * (1 + 1e-15)), x, mpmath.log) > 2.3e-16  # the broken twin


def test_exp() -> None:
    x = torch.cat([(U - 0.5) * 1400.0, (U - 0.5) * 1e-5, (U - 0.5) * 4])
    assert relative(exp(x), x, mpmath.exp) < 2.3e-16
    edges = torch.tensor([-math.inf, -709.0, 0.0, 710.0, math.inf], dtype=torch.float64)
    assert exp(edges).tolist() == [0.0, 0.0, 1.0, math.inf, math.inf]
    assert exp(torch.tensor([math.nan], dtype=torch.float64)).isnan().all()


def test_sqrt_is_correctly_rounded() -> None:
    x = torch.cat([U, U * 1e9, TINY])
    assert sqrt(x).tolist() == [math.sqrt(v) for v in x.tolist()]


def test_log_factorial() -> None:
    k = torch.cat([torch.arange(40.0), torch.tensor([100.0, 1e4, 1e9])]).double()
    assert relative(log_factorial(k), k, lambda v: mpmath.loggamma(v + 1)) < 5e-16


def quantile(u):
    return -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * u)


def test_normal_quantile() -> None:
    x = torch.cat([U, TINY, 1.0 - TINY, torch.tensor([0.075, 0.925, 0.5 + 2**-52]).double(), (U - 0.5) * 0.01 + 0.5])
    assert relative(normal64(x), x, quantile) < 1e-15
    # the broken twin: one coefficient's last printed digits left out would already be seen
    assert relative(normal64(x) * (1 + 2e-15), x, quantile) > 1e-15


def test_normal_quantile_is_odd_and_monotone() -> None:
    grid = (torch.arange(0, 1 << 52, (1 << 52) // 100_003, dtype=torch.float64) + 0.5) * 2.0**-52
    z = normal64(grid)
    assert bool((z.diff() > 0).all())
    assert torch.equal(normal64(1.0 - grid), -z)
    # neighbours of the places where the formula changes
    for place in (0.075, 0.925, math.exp(-25.0), 1 - math.exp(-25.0)):
        m = int(place * 2**52)
        near = (torch.arange(m - 500, m + 500, dtype=torch.float64) + 0.5) * 2.0**-52
        assert bool((normal64(near).diff() >= -2 * np.spacing(abs(float(normal64(near)[0])))).all())


def test_uniforms_stay_inside_and_are_exact() -> None:
    ends = torch.tensor([0, 0xFFFFFFFF])
    assert uniform64(ends, ends).tolist() == [2.0**-53, 1 - 2.0**-53]
    assert uniform32(ends).tolist() == [2.0**-24, 1 - 2.0**-24] and uniform32(ends).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        u = uniform64(ends, ends).to(dtype) if dtype == torch.float64 else uniform32(ends)
        assert torch.equal(1 - u, u.flip(0)) and bool(((u > 0) & (u < 1)).all())
    assert normal64(uniform64(ends, ends)).abs().max() == pytest.approx(8.2095, abs=1e-4)
