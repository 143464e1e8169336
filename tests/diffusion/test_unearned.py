"""Runs in which every particle had the same reward do not state the evidence as known."""

from __future__ import annotations

import math

import pytest
import torch

import motes
from motes.core.estimate import unearned
from motes.diffusion import AdaptiveReward, RectifiedFlow, TiltedFlow, VariancePreserving, gaussian
from motes.diffusion.discrete import Masked, Ordered, ReverseDiscrete, joint

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
N = 64
ONE = gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))
FLOW = gaussian(RectifiedFlow(), torch.zeros(1), torch.eye(1))
PAIR = joint(Masked(2), torch.tensor([[0.499, 0.001], [0.001, 0.499]], dtype=torch.float64))
P = 0.002


def far(x):
    return 6.0 * (x[:, 0] > 6).double()


def apart(x):
    return 6.0 * (x[:, 0] != x[:, 1]).double()


MODELS = {
    "images": motes.ReverseDiffusion(ONE, 30, reward=far, shape=(1,)),
    "adaptive": AdaptiveReward(ONE, 30, reward=far, shape=(1,)),
    "flow": TiltedFlow(FLOW, 30, reward=far, shape=(1,)),
    "tokens": ReverseDiscrete(PAIR, 2, reward=apart, rule=Ordered("random")),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_reward_that_no_particle_earned_leaves_no_bar(name):
    found = motes.sample(MODELS[name], N, seed=0, progress=False)
    assert abs(found.log_evidence) < 1e-9
    assert math.isnan(found.log_evidence_se) and "the reward was 0 for each" in found.standard_error.reason
    assert math.isnan(float(found.mean(lambda x: x[:, 0].double()).se))


def test_the_twin_states_an_error_of_zero_and_misses(monkeypatch):
    truth = math.log(1 + P * math.expm1(6))
    monkeypatch.setattr(unearned, "ROUNDING", -1.0)
    found = motes.sample(MODELS["tokens"], N, seed=0, progress=False)
    assert found.log_evidence_se == 0 and abs(found.log_evidence - truth) > 0.5


def test_a_reward_that_some_earned_and_none_at_all_keep_their_bars():
    """Perfect guidance too: all weigh the same, and their rewards differ."""
    half = motes.sample(ReverseDiscrete(PAIR, 2, reward=lambda x: x[:, 0].double(), rule=Ordered("random")), N, seed=0)
    assert 0 < half.log_evidence_se < 0.2
    free = motes.sample(ReverseDiscrete(PAIR, 2, rule=Ordered("random")), N, seed=0)
    assert not math.isnan(float(free.mean(lambda x: x[:, 0].double()).se))
    ends = joint(Masked(2), torch.full((2, 2), 0.25, dtype=torch.float64))
    model = ReverseDiscrete(ends, 2, reward=lambda x: x.sum(1).double(), guidance="reward", rule=Ordered("left"))
    assert motes.sample(model, N, seed=0, progress=False).log_evidence_se < 0.1
