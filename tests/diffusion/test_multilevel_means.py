"""Means of images carry the error of the steps; chains too short to know it have no bars."""

import math

import pytest
import torch
from benchmarks.trust.targets import diffusion_measured

import motes
from motes.diffusion import (
    AdaptiveReward,
    RectifiedFlow,
    ReverseDiffusion,
    ValueDecoding,
    VariancePreserving,
    gaussian,
    mixture,
)
from motes.diffusion.guidance import Event
from motes.diffusion.sampling import multilevel, multilevel_error

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
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


@pytest.mark.parametrize("guidance", [None, "reward"])
def test_levels_that_seem_alike_state_nothing(guidance, monkeypatch):
    """Five steps and two of thrice the length do not differ by more than chance, and the mean is off by .6 of 1.

    The twin that goes by the difference, as chains of many steps do, is wrong in silence.
    """

    def silent(steps, seed):
        model = motes.ReverseDiffusion(ONE, steps, reward=first, guidance=guidance, shape=(1,))
        found = run(model, 100, seed)
        estimate = found.mean(first)
        return "means" not in found.doubts and abs(float(estimate.value) - 1) > 3 * float(estimate.se)

    assert not any(silent(steps, seed) for steps in (1, 2, 5, 12, 17) for seed in range(3))
    monkeypatch.setattr(multilevel, "SHORT", 0)
    assert sum(silent(5, seed) for seed in range(6)) >= 4 and silent(1, 0)


def test_copies_of_one_coarse_path_accuse_nobody(monkeypatch):
    """32 digits whose six coarse paths all descend from one: the difference that they share is no proof of any.

    The twin counts each by itself, and their errors as normal: it finds images off by many times the particles' error.
    """
    found = run(motes.diffusion.demo.steered_digits(3, steps=20), 32, seed=0)
    x = found.particles.x["coarse"]
    assert len(found.particles.root[x["on"]].unique()) == 1 and int(x["on"].sum()) == 6
    assert not found.doubts and math.isfinite(found.log_evidence_se)
    alone = multilevel_error.PathFamilies.of
    monkeypatch.setattr(multilevel_error.PathFamilies, "of", lambda root, *w: alone(torch.arange(len(root)), *w))
    monkeypatch.setattr(multilevel_error.PathFamilies, "reach", lambda self, deviations: deviations)
    level = motes.diffusion.demo.steered_digits(3, steps=20).chain.level
    assert multilevel_error.remarks(level, found.particles, found.view)


def test_few_families_reach_further():
    """Student's t: 3 deviations of 2.2 families are as rare as many more errors, of 1000 families as three."""
    few = multilevel_error.PathFamilies(torch.arange(3), 3, 2.2)
    assert few.reach(3.0) > 20 and math.isinf(multilevel_error.PathFamilies(torch.arange(1), 1, 1.0).reach(3.0))
    assert multilevel_error.PathFamilies(torch.arange(3), 3, 1000.0).reach(3.0) == pytest.approx(3.0, rel=0.01)


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


def test_bars_of_ancestral_steps_count_on_an_error_that_falls_slowly(monkeypatch):
    """A mixture tilted by exp(2 x_0): 30 ancestral steps are .13 low; the error halves for a third of their length."""
    share, centre = (
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-2.0, 0.0], [1.0, 1.0]], dtype=torch.float64),
    )
    mass = (share.log() + 2 * centre[:, 0]).softmax(0)
    truth = float((mass * (centre[:, 0] + 0.4)).sum())
    model = mixture(VP, share, centre, 0.2 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2))
    knobs = {"reward": lambda x: 2 * x[:, 0], "shape": (2,), "integrator": "ancestral", "dtype": torch.float64}

    def off() -> float:
        """The root mean square of the errors, each in units of what its run states."""
        runs = [motes.sample(ReverseDiffusion(model, 30, **knobs), 800, seed=s, progress=False) for s in range(8)]
        found = [run.mean(lambda x: x[:, 0]) for run in runs]
        return float(torch.tensor([(float(m) - truth) / float(m.se) for m in found]).square().mean().sqrt())

    assert off() < 1.5
    monkeypatch.setitem(multilevel.FALLS, "ancestral", 1.0)  # the broken twin: an error that falls as the steps
    assert off() > 1.5
