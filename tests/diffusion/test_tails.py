"""Runs whose weights had a heavy tail say so: there error bars from the spread of what is seen fall short."""

import pytest
import torch

import motes
from motes.core.particles import Particles
from motes.diffusion import AdaptiveReward, VariancePreserving, gaussian, mixture
from motes.diffusion.sampling.chain import light_tails, tail_remarks, watched

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
F64 = torch.float64
VP = VariancePreserving()
WIDE = mixture(  # the tilt by exp(1.5 x) makes the widest of three the heaviest
    VP,
    torch.tensor([0.5, 0.3, 0.2], dtype=F64),
    torch.tensor([[0.43], [-0.34], [-0.47]], dtype=F64),
    torch.tensor([[[0.12]], [[0.67]], [[1.71]]], dtype=F64),
)


def tilted(denoiser, **knobs):
    return motes.ReverseDiffusion(denoiser, 50, reward=lambda x: 1.5 * x[:, 0], guidance="reward", shape=(1,), **knobs)


def heavy(run):
    return [r for r in run.remarks if "Pareto tail" in r]


def test_a_tilt_that_few_particles_follow_is_doubted_and_an_even_one_is_not():
    """Six seeds each: all of the first, none of the second (normal data, for which the guidance is nearly right)."""
    even = gaussian(VP, torch.zeros(1), 0.5 * torch.eye(1))
    for seed in range(6):
        run = motes.sample(tilted(WIDE), 512, seed=seed, progress=False)
        assert len(heavy(run)) == 1 and run.doubts == {"evidence", "means"}
        assert not heavy(motes.sample(tilted(even), 512, seed=seed, progress=False))
    run = motes.sample(AdaptiveReward(WIDE, 50, reward=lambda x: 4 * x[:, 0], shape=(1,)), 512, seed=0, progress=False)
    assert heavy(run)


def test_the_heaviest_tail_is_remembered():
    """Weights of Pareto's law of shape 0.9, then even ones; with too few particles nothing is known."""
    u = motes.Rng(3).at("u").uniform((1000,))
    pareto = Particles.start({"x": u}, -0.9 * u.log().to(F64), shared=light_tails())
    seen = watched(pareto, pareto.shared)
    assert 0.6 < float(seen.shared["tail"]) < 1.1 and len(tail_remarks(seen)) == 1
    even = Particles.start({"x": u}, torch.zeros(1000, dtype=F64), shared=seen.shared)
    assert watched(even, seen.shared).shared["tail"] == seen.shared["tail"]
    mild = Particles.start({"x": u}, -0.2 * u.log().to(F64), shared=light_tails())
    assert not tail_remarks(watched(mild, mild.shared))
    few = Particles.start({"x": u[:50]}, -0.9 * u[:50].log().to(F64), shared=light_tails())
    assert not tail_remarks(watched(few, few.shared))
