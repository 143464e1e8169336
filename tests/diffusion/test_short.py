"""Chains without coarse ones beside them state nothing where their steps are few, and doubt what they cannot know."""

import math

import pytest
import torch

import motes
from motes.diffusion import (
    EDM,
    Composition,
    Guided,
    ProbabilityFlow,
    RectifiedFlow,
    VariancePreserving,
    gaussian,
    short,
)
from motes.diffusion.discrete import Masked, ReverseDiscrete, TokenComposition, Uniform, joint
from motes.diffusion.flows.tilted_flow import TiltedFlow

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
ONE = torch.zeros(1), torch.eye(1)
NORMAL = gaussian(EDM(), *ONE)


def square(x):
    return x[:, 0].square()


def run(model, n=1000, seed=0):
    return motes.sample(model, n, seed=seed, progress=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: ProbabilityFlow(NORMAL, k, shape=(1,)),
        lambda k: ProbabilityFlow(NORMAL, k, shape=(1,), integrator="euler"),
        lambda k: Guided(NORMAL, k, shape=(1,)),
        lambda k: Guided(NORMAL, k, shape=(1,), noise=0.0, integrator="ddim"),
    ],
)
def test_a_mean_square_of_few_steps_has_no_bar(make, monkeypatch):
    """1 of a standard normal law; 4 steps give 3.6, .2 or .1. The twin that knows no short chain states them."""

    def wrong(found):
        estimate = found.mean(square)
        return abs(float(estimate.value) - 1) > 4 * float(estimate.se)

    found = run(make(4))
    assert found.doubts == {"means"} and math.isnan(float(found.mean(square).se)) and "4 steps" in found.mean().reason
    monkeypatch.setattr(short, "SHORT", 0)
    assert wrong(run(make(4)))


def test_integrators_of_first_order_are_doubted_at_any_length():
    """30 steps of Euler's are .18 off; Heun's are not, and nothing is said of them."""
    first = run(ProbabilityFlow(NORMAL, 30, shape=(1,), integrator="euler"))
    assert first.doubts == {"means"} and float(first.mean(square).value) < 0.9 and not first.mean(square).reason
    second = run(ProbabilityFlow(NORMAL, 30, shape=(1,)))
    estimate = second.mean(square)
    assert not second.remarks and abs(float(estimate.value) - 1) < 4 * float(estimate.se)


def test_a_tilted_flow_of_two_steps_states_nothing():
    """Two of Euler's are off by .15 and more, as half of them are; eight of Heun's have bars."""
    flow = gaussian(RectifiedFlow(), 0.3 * torch.ones(1), torch.eye(1) / 4)
    few = run(TiltedFlow(flow, 2, reward=lambda x: x[:, 0], shape=(1,), integrator="euler"), 500)
    assert few.doubts == {"evidence", "means"} and math.isnan(few.log_evidence_se)
    many = run(TiltedFlow(flow, 8, reward=lambda x: x[:, 0], shape=(1,)), 500)
    assert not many.doubts and abs(many.log_evidence - 0.425) < 4 * many.log_evidence_se


def test_one_step_of_a_composition_states_nothing():
    """The square of N(0, 1/2), off by .06 in one step, which no two steps can show; 20 have bars."""
    law = gaussian(VariancePreserving(), ONE[0], ONE[1] / 2)
    one, many = (run(Composition([law], [2.0], steps=k, weights="transition", shape=(1,)), 500) for k in (1, 20))
    assert one.doubts == {"evidence", "means"} and math.isnan(one.log_evidence_se)
    assert abs(many.log_evidence + 0.5 * math.log(2 * math.pi)) < 4 * many.log_evidence_se


def test_rates_of_a_composition_of_tokens_are_doubted():
    """Their steps' error is not known at any number; with few there is no bar."""
    model = joint(Uniform(2), torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    few, many = (run(TokenComposition([model], [2.0], steps=k), 200) for k in (4, 40))
    assert few.doubts == many.doubts == {"evidence", "means"}
    assert math.isnan(few.log_evidence_se) and math.isfinite(many.log_evidence_se)


def test_two_steps_of_masked_tokens_state_no_normaliser():
    """Two tokens drawn at once miss that they go together; eight steps know by how much."""
    model = joint(Masked(2), torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    few, many = (
        run(ReverseDiscrete(model, k, reward=lambda x: 2.0 * (x[:, 0] == x[:, 1]).double()), 500) for k in (2, 8)
    )
    truth = math.log(0.8 * math.exp(2) + 0.2)
    assert math.isnan(few.log_evidence_se) and "evidence" in few.doubts and "2 steps" in few.standard_error.reason
    assert abs(many.log_evidence - truth) < 4 * many.log_evidence_se
