"""Mistakes of published samplers, made on purpose: each misses the law that the engine finds with the same steps."""

import pytest
import torch

import motes
from diffusion.linear import Normal, chain
from motes.core.particles import Particles
from motes.core.resampling import schemes
from motes.core.weights import ess
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.sampling.value_decoding import ValueDecoding

F64 = torch.float64
VP = VariancePreserving()
STEPS, N = 16, 2000
ONE = Normal(torch.tensor([0.4], dtype=F64), torch.tensor([[0.6]], dtype=F64))
DENOISER = gaussian(VP, ONE.mean, ONE.covariance)
MODEL = motes.ReverseDiffusion(
    DENOISER,
    STEPS,
    reward=lambda x: -1.5 * (x[:, 0] - 1.6).square(),
    shape=(1,),
    integrator="ancestral",
    schedule="linear",
    coarse=0,
    dtype=F64,
)
_, LAW = chain(VP, VP.times(STEPS), ONE, "ancestral", "denoised").tilted(
    torch.tensor([1.6], dtype=F64), torch.tensor([[3.0]], dtype=F64)
)
CLOSE = 0.05  # about five standard errors of the mean of one run


def walk(after, ess_threshold=0.5):
    """The engine's loop; `after(old, index, resampled)` may spoil the population after a look at resampling."""
    scheme, rng = schemes["systematic"], motes.Rng(7)
    particles = MODEL.init(rng.at("init", step=0), N)
    while not MODEL.done(particles):
        particles = particles.kept()
        t = particles.t + 1
        if ess(particles.log_weight) <= ess_threshold * N:
            index = scheme(rng.at("resample", step=t), particles.log_weight, order=None)
            particles = after(particles, index, particles.resampled(index))
        else:
            particles = after(particles, None, particles)
        particles = MODEL.step(rng.at("step", step=t), particles)
    return particles


def mean(particles: Particles, weighted=True):
    weight = torch.softmax(particles.log_weight, 0) if weighted else torch.full((N,), 1 / N, dtype=F64)
    return float((weight * MODEL.view(particles)[:, 0]).sum())


def right(old, index, new):
    return new


def test_the_loop_without_mistakes_finds_the_law():
    assert mean(walk(right)) == pytest.approx(float(LAW.mean), abs=CLOSE)
    run = motes.sample(MODEL, N, seed=7, progress=False)
    assert float(run.mean().value) == pytest.approx(float(LAW.mean), abs=CLOSE)


def test_weights_that_are_not_carried_on_when_nothing_is_resampled():
    """As in FK steering's reference code with adaptive resampling, which then returns its images without weights."""

    def forget(old, index, new):
        return Particles(new.x, torch.zeros(N, dtype=F64), new.ancestor, new.root, new.t, new.shared)

    wrong = walk(forget, ess_threshold=0.25)
    assert abs(mean(wrong, weighted=False) - float(LAW.mean)) > 3 * CLOSE


def test_what_belongs_to_a_particle_and_stays_behind_when_it_is_resampled():
    """As the old potentials in DAS's pipelines: the state moves to the child, the number to subtract does not."""

    def leave(old, index, new):
        return Particles({**new.x, "total": old.x["total"]}, new.log_weight, new.ancestor, new.root, new.t, new.shared)

    assert abs(mean(walk(leave)) - float(LAW.mean)) > 2 * CLOSE


def test_the_best_proposal_in_the_place_of_a_drawn_one():
    """As in SVDD's code, which takes the largest value; the paper draws, and neither keeps the weight."""

    class Greedy(motes.FeynmanKac):
        inner = ValueDecoding(MODEL, proposals=8)

        def init(self, rng, n):
            return self.inner.init(rng, n)

        def done(self, particles):
            return self.inner.done(particles)

        def step(self, rng, particles):
            row = torch.arange(particles.n).repeat_interleave(8)
            wide = Particles.start({k: v[row] for k, v in particles.x.items()}, torch.zeros(8 * N, dtype=F64))
            wide = Particles(wide.x, wide.log_weight, wide.ancestor, wide.root, particles.t, particles.shared)
            new = MODEL.step(rng, wide)
            best = torch.arange(N) * 8 + new.x["total"].reshape(N, 8).argmax(1)
            return particles.step({k: v[best] for k, v in new.x.items()}, torch.zeros(N, dtype=F64))

    greedy = motes.sample(Greedy(), N, seed=7, progress=False)
    assert abs(mean(greedy.particles, weighted=False) - float(LAW.mean)) > 2 * CLOSE
    drawn = motes.sample(ValueDecoding(MODEL, proposals=8), N, seed=7, progress=False)
    assert mean(drawn.particles) == pytest.approx(float(LAW.mean), abs=CLOSE)
