"""What is fitted to particles is used for others: no bias of powers at 50 particles, against twins that fit alike."""

import math

import pytest
import torch

import motes
from diffusion.two_modes import F64, blind
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.composing import calming_map, curvature
from motes.diffusion.composing.composition import Composition
from motes.diffusion.composing.crosswise import LEAST, by_half, is_split, other_half
from motes.diffusion.composing.driftlite import DriftLite

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
VP = VariancePreserving()


def errors(d, seeds, n=50, power=2.0, variance=0.5, **options):
    """(seeds,) errors of the log normaliser of N(0, variance I)^power from its score alone, 40 steps."""
    model = gaussian(VP, torch.zeros(d), variance * torch.eye(d))
    v = float(VP.alpha(VP.t_min) ** 2 * variance + VP.sigma(VP.t_min) ** 2)
    log_z = 0.5 * d * (math.log(2 * math.pi * v / power) - power * math.log(2 * math.pi * v))
    cold = Composition([blind(model)], [power], 40, shape=(d,), **options)
    found = [motes.sample(cold, n, seed=seed, progress=False).log_evidence - log_z for seed in range(seeds)]
    return torch.tensor(found, dtype=F64)


def off(error):
    """How many standard errors the mean of the log is from that of an unbiased log-normal estimate."""
    return float(error.mean() + 0.5 * error.var()) / (float(error.std()) / math.sqrt(len(error)))


def test_fifty_particles_find_the_normaliser_of_a_square():
    """Alpha 1e-6; would catch .13 nats in one dimension, 1.2 in 16 where one run spreads by .8."""
    assert abs(off(errors(1, 24))) < 4.9
    assert abs(off(errors(16, 12))) < 4.9


def alike(weight):
    """The broken fit: every particle has a part in its own map."""
    return torch.stack([weight, weight])


def test_a_map_fitted_to_its_own_particles_is_caught(monkeypatch):
    """The twin: nats too many in 16 dimensions."""
    monkeypatch.setattr(calming_map, "other_half", alike)
    monkeypatch.setattr(curvature, "other_half", alike)
    assert off(errors(16, 12)) > 4.9


def test_a_curvature_that_is_a_mean_of_noise_is_caught(monkeypatch):
    """The twin: crosswise, but with the noise's chance likeness to the states left in."""

    def mean(weight, x, xi, change, std):
        return weight @ curvature.curvatures(xi, change, std)

    monkeypatch.setattr(curvature, "fitted_curvatures", mean)
    assert off(errors(1, 24)) > 4.9


def test_a_control_with_too_few_particles_has_no_bar():
    model = gaussian(VP, torch.zeros(2), torch.eye(2))
    for basis, size in ((("scale",), 1), (("diagonal", "scores"), 5), (("affine",), 6)):
        control = DriftLite(basis)
        cold = Composition([blind(model)], [1.5], 12, shape=(2,), control=control)
        assert control.size(2, 1) == size
        few, enough = (motes.sample(cold, n, seed=0, progress=False) for n in (20 * size - 1, 20 * size))
        assert math.isnan(few.log_evidence_se) and any("coefficients" in said for said in few.remarks)
        assert not any("coefficients" in said for said in enough.remarks)


def test_fitted_curvatures_leave_nothing_to_chance_for_linear_scores():
    rng = motes.Rng(0)
    x, xi = rng.at("x").normal((20, 3), dtype=F64), rng.at("xi").normal((20, 3), dtype=F64)
    std = torch.full((20,), 0.3, dtype=F64)
    slope = torch.tensor([1.7, -0.4], dtype=F64)
    y = 0.9 * x + std[:, None] * xi
    change = -slope[:, None] * y[:, None] + 1.1 * x[:, None] + torch.tensor([0.2, 1.0])[:, None]
    weight = torch.softmax(rng.at("weight").normal((2, 20), dtype=F64), 1)
    found = curvature.fitted_curvatures(weight, x, xi, change, std)
    assert torch.allclose(found, slope.expand(2, 2), atol=1e-12)
    assert float((weight @ curvature.curvatures(xi, change, std) - slope).abs().max()) > 0.1


def test_halves_do_not_see_themselves():
    weight = torch.softmax(torch.arange(11, dtype=F64) / 10, 0)
    halves = other_half(weight)
    assert is_split(halves) and torch.allclose(halves.sum(1), torch.ones(2, dtype=F64))
    assert bool((halves[0, :6] == 0).all()) and bool((halves[1, 6:] == 0).all())
    assert torch.equal(by_half(torch.tensor([1.0, 2.0]), 11)[5:7], torch.tensor([1.0, 2.0]))
    few = other_half(torch.full((int(LEAST),), 1 / LEAST, dtype=F64))
    assert not is_split(few) and torch.equal(few[0], few[1])
    assert not is_split(other_half(torch.ones(1, dtype=F64)))


def test_one_particle_walks_back_too():
    model = blind(gaussian(VP, torch.zeros(8), torch.eye(8)))
    run = motes.sample(Composition([model], [1.5], 8, shape=(8,)), 1, seed=0, progress=False)
    assert math.isfinite(run.log_evidence)
