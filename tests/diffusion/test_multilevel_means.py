"""Means of images carry the error of the steps; chains too short to know it have no bars."""

import math

import pytest
import torch
from benchmarks.trust.targets import diffusion_measured

import motes
from motes.diffusion import AdaptiveReward, RectifiedFlow, ValueDecoding, VariancePreserving, gaussian
from motes.diffusion.guidance import Event

pytestmark = pytest.mark.filterwarnings("ignore::motes.core.errors.MotesWarning")
VP = VariancePreserving()
ONE = gaussian(VP, torch.zeros(1), torch.eye(1))


def first(x):
    return x[:, 0]


def tilted(steps, **knobs):
    """N(0, 1) tilted by exp(x), which is N(1, 1)."""
    return motes.ReverseDiffusion(ONE, steps, reward=first, guidance="reward", shape=(1,), **knobs)


def run(model, n=1000, seed=1, **kwargs):
    return motes.sample(model, n, seed=seed, progress=False, **kwargs)


def test_a_mean_of_twenty_steps_is_within_its_bar():
    """Off by about -.08 of steps in each of eight runs; the twin, the particles' error alone, says less than half."""
    inside, alone = 0, 0
    for seed in range(8):
        found = run(tilted(20), 2000, seed)
        estimate, spread = found.mean(first), found.particles_mean(found.values(first))
        inside += abs(float(estimate.value) - 1) < 2 * float(estimate.se)
        alone += abs(float(spread.value) - 1) < 2 * float(spread.se)
    assert inside == 8 and alone <= 4


def test_with_many_steps_the_bar_is_that_of_the_particles():
    found = run(tilted(200))
    assert float(found.mean(first).se) < 1.1 * float(found.particles_mean(found.values(first)).se)
    assert not found.doubts


@pytest.mark.parametrize(
    "make",
    [
        tilted,
        lambda k: AdaptiveReward(ONE, k, reward=first, shape=(1,)),
        lambda k: ValueDecoding(tilted(k), proposals=2),
    ],
)
def test_every_sampler_with_coarse_paths_knows(make):
    found = run(make(20), 200)
    assert found.coarse is not None and len(found.coarse.beside) >= 2
    assert float(found.mean(first).se) > float(found.particles_mean(found.values(first)).se)


def test_chains_too_short_to_know_their_error_have_no_bars():
    """log E exp(x) is .5, and .27 by ten steps: .15 from that of four. The twin of 50 steps states what it knows."""
    short, twin = run(tilted(10)), run(tilted(50))
    assert abs(short.log_evidence - 0.5) > 0.15 and abs(twin.log_evidence - 0.5) < 4 * twin.log_evidence_se
    assert math.isnan(short.log_evidence_se) and "10 steps are too few" in short.standard_error.reason
    assert math.isnan(float(short.mean(first).se)) and "10 steps are too few" in short.mean(first).reason
    assert short.doubts == {"evidence", "means"} and not twin.doubts


def test_a_short_chain_states_nothing_where_the_coarse_one_is_as_far_off():
    """Six steps of a flow, and two: both .14 above the truth for exp(-x^2 / 2). The twin of 60 steps has bars."""
    flow = gaussian(RectifiedFlow(), torch.zeros(1), torch.eye(1))

    def tilt(steps: int) -> motes.ReverseDiffusion:
        return motes.ReverseDiffusion(flow, steps, reward=lambda x: -0.5 * x[:, 0].square(), shape=(1,))

    for seed in range(4):
        found = motes.sample(tilt(6), 64, seed=seed, progress=False)
        assert math.isnan(found.log_evidence_se) and math.isnan(float(found.mean(first).se))
        assert found.doubts == {"evidence", "means"}
    assert not math.isnan(motes.sample(tilt(60), 64, seed=0, progress=False).log_evidence_se)


def test_a_short_chain_that_moves_one_estimate_states_no_other():
    """Sixteen numbers behind a measurement, ten steps: means move by more than chance, log p(y) seems not to."""
    target = next(t for t in diffusion_measured.TARGETS if t.name == "diffusion-measured-16")
    for seed in range(6):
        found = target.model("VP, 10 steps", 512, seed).run(seed)
        assert math.isnan(found.log_evidence_se) and found.doubts == {"evidence", "means"}


def test_where_no_coarse_path_has_weight_means_have_no_bars():
    """Beyond 2 by ten steps: no path of four long ones comes there."""
    event = Event(lambda x: x[:, 0] - 2.0)
    model = motes.ReverseDiffusion(ONE, 10, reward=event.reward, guidance="reward", shape=(1,), twist=event)
    found = run(model, 512)
    assert found.doubts == {"evidence", "means"} and math.isnan(float(found.mean(first).se))
