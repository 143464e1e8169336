"""Inpainting with the exact denoiser of a data set: every posterior probability and log p(y) by Bayes' rule."""

import math
from dataclasses import replace

import pytest
import torch

import motes
from diffusion.linear import F64
from motes.diffusion import VariancePreserving, inverse
from motes.diffusion.denoisers.exact import empirical
from motes.rng import Rng

PROCESS = VariancePreserving(schedule="cosine", t_min=0.01, t_max=0.99)
IMAGES = torch.tanh(Rng(3).at("images").normal((12, 1, 3, 3), dtype=torch.float32))
KEEP = torch.tensor([[[True, True, False], [True, False, False], [True, False, True]]])
TRUTH, NOISE, N = 4, 1.0, 4000
STEPS, BIAS = 80, 0.02  # the chain of so many steps is not quite the data's law


@pytest.fixture(scope="module")
def seen():
    """The observation, the exact posterior (12,), log p(y), and a run without resampling: its weights are iid."""
    operator = inverse.Mask(KEEP)
    y = operator.apply(IMAGES[TRUTH : TRUTH + 1])[0]
    y = y + NOISE * Rng(4).at("noise").normal(tuple(y.shape), dtype=torch.float32)
    observation = inverse.Observation(operator, y, NOISE, scale=0.6)
    like = observation.reward(IMAGES)
    knobs = {"shape": (1, 3, 3), "guidance": 0.5, "integrator": "euler-maruyama"}
    model = inverse.posterior(empirical(PROCESS, IMAGES), STEPS, observation, **knobs)
    run = motes.sample(model, N, seed=1, ess_threshold=0, progress=False)
    return observation, torch.softmax(like, 0), float(like.logsumexp(0)) - math.log(len(IMAGES)), run


def shares(run, weight):
    """The weighted share (12,) of the images nearest to each example, and its standard error by the delta method."""
    near = torch.cdist(run.view.flatten(1), IMAGES.flatten(1)).argmin(1)
    member = torch.nn.functional.one_hot(near, len(IMAGES)).to(F64)
    share = weight @ member
    return share, (weight.square() @ (member - share).square()).sqrt()


def test_the_images_are_examples_and_several_are_likely(seen):
    _, exact, _, run = seen
    assert float(torch.cdist(run.view.flatten(1), IMAGES.flatten(1)).amin(1).max()) < 0.1
    assert 2 < float(1 / exact.square().sum()) < 10 and run.ess > N / 3


def test_the_evidence_is_the_sum_over_the_examples(seen):
    """|z| < 4.9 (alpha 1e-6) beyond the bias of the steps; catches an error of log p(y) of 0.08 nats."""
    _, _, evidence, run = seen
    ratio = torch.exp(run.log_weight - evidence)
    se = float(ratio.std()) / math.sqrt(N)
    assert se < 0.015 and abs(float(ratio.mean()) - 1) < 4.9 * se + BIAS


def test_the_posterior_is_bayes_rule(seen):
    """12 shares, |z| < 5.3 each (alpha 1e-6 together); without the weights it fails."""
    _, exact, _, run = seen
    share, se = shares(run, run.weight)
    assert bool(((share - exact).abs() < 5.3 * se + BIAS).all()), (share, exact, se)
    raw, raw_se = shares(run, torch.full((N,), 1 / N, dtype=F64))
    assert bool(((raw - exact).abs() > 5.3 * raw_se + BIAS).any())


def test_a_wrong_noise_level_is_another_posterior(seen):
    """The twin that believes in two thirds of the noise fails both tests by far."""
    observation, _, _, run = seen
    like = replace(observation, std=NOISE / 1.5).reward(IMAGES)
    ratio = torch.exp(run.log_weight - float(like.logsumexp(0)) + math.log(len(IMAGES)))
    assert abs(float(ratio.mean()) - 1) > 4.9 * float(ratio.std()) / math.sqrt(N) + BIAS
    share, se = shares(run, run.weight)
    assert bool(((share - torch.softmax(like, 0)).abs() > 5.3 * se + BIAS).any())
