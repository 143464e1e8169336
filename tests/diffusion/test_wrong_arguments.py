"""What a user may give by mistake is named where it is made, with a word on what would do."""

import numpy as np
import pytest
import torch

import motes
from motes.diffusion import (
    AdaptiveReward,
    Denoiser,
    Guided,
    ValueDecoding,
    VariancePreserving,
    calibrated,
    diagnostics,
    gaussian,
    inverse,
    log_likelihood,
    schedule,
    training,
)
from motes.diffusion.discrete import Masked, ReverseDiscrete, joint
from motes.diffusion.processes.tabulated import Tabulated

PROCESS = VariancePreserving()
DENOISER = gaussian(PROCESS, torch.zeros(2), torch.eye(2))


def reverse(**kwargs):
    return motes.ReverseDiffusion(DENOISER, **{"steps": 3, "shape": (2,), **kwargs})


def guided(**kwargs):
    return Guided(DENOISER, **{"steps": 3, "shape": (2,), **kwargs})


def adaptive(**kwargs):
    return AdaptiveReward(DENOISER, **{"steps": 3, "shape": (2,), "reward": lambda x: x[:, 0], **kwargs})


@pytest.mark.parametrize("make", [reverse, guided, adaptive])
@pytest.mark.parametrize(
    "field, value, what",
    [
        ("shape", 2, "shape of one image"),
        ("shape", "22", "shape of one image"),
        ("shape", (2, 0), "positive whole numbers"),
        ("shape", (2.0,), "positive whole numbers"),
        ("dtype", torch.int64, "floating-point"),
        ("dtype", "float32", "floating-point"),
        ("device", "gpu", "a device of torch"),
        ("steps", 3.0, "whole number"),
        ("steps", "3", "whole number"),
        ("steps", 0, "at least 1 step"),
        ("reward", "digit", "reward must be a function"),
        ("reward", 2.0, "reward must be a function"),
    ],
)
def test_a_sampler_of_images_names_what_does_not_fit(make, field, value, what):
    with pytest.raises((TypeError, ValueError, motes.MotesError), match=what):
        make(**{field: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="sees no CUDA device"):
        reverse(device="cuda")


def test_more_of_the_reverse_sampler():
    with pytest.raises(TypeError, match=r"guidance\.Twist"):
        reverse(twist="linear", reward=lambda x: x[:, 0])
    with pytest.raises(TypeError, match="law to start from"):
        reverse(start=torch.zeros(2))
    assert reverse(steps=np.int64(3)).table.steps == 3
    assert reverse(steps=[0.9, 0.5, 0.1]).table.steps == 2
    with pytest.raises(TypeError, match="give a Denoiser"):
        Guided(lambda x, t: x, 3, shape=(2,))  # type: ignore[arg-type]


def test_a_denoiser_names_what_does_not_fit():
    with pytest.raises(TypeError, match="model must be a function"):
        Denoiser(None, PROCESS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="process must be a process"):
        Denoiser(lambda x, t: x, VariancePreserving)  # type: ignore[arg-type]
    with pytest.raises(motes.MotesError, match=r"returned a tuple, not a tensor.*\[0\]"):
        Denoiser(lambda x, t: (x, t), PROCESS).data(torch.zeros(2, 2), 0.5)
    with pytest.raises(motes.MotesError, match="returned a ndarray"):
        Denoiser(lambda x, t: x.numpy(), PROCESS).data(torch.zeros(2, 2), 0.5)


def test_measurements_are_tensors():
    keep = np.ones((2, 2), dtype=bool)
    for make, name in (
        (lambda: inverse.Mask(keep), "keep"),
        (lambda: inverse.Fourier(keep), "keep"),
        (lambda: inverse.Blur([[1.0]]), "kernel"),
        (lambda: inverse.Matrix(np.eye(2), (2,)), "matrix"),
        (lambda: inverse.Observation(inverse.Downsample(2), [1.0], 0.1), "y"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a torch tensor, not a"):
            make()


def test_what_looks_at_a_model_wants_tensors_and_an_address():
    x, rng, array = torch.zeros(8, 2), motes.Rng(0), np.zeros((8, 2))
    for make, what in (
        (lambda: log_likelihood(DENOISER, array, 4), "x must be a torch tensor"),
        (lambda: calibrated(DENOISER, array, PROCESS.times(2), seed=rng), "samples must be a torch tensor"),
        (lambda: calibrated(DENOISER, x, PROCESS.times(2), seed=None), "seed must be"),
        (lambda: schedule.align_your_steps(DENOISER, array, 3, seed=rng), "samples must be a torch tensor"),
        (lambda: schedule.align_your_steps(DENOISER, x, 3, seed=None), "seed must be"),
        (lambda: diagnostics.diagnose(DENOISER, array, seed=rng), "samples must be a torch tensor"),
        (lambda: diagnostics.diagnose(DENOISER, x, seed=1.5), "seed must be"),
        (lambda: training.train(torch.nn.Linear(2, 2), array, PROCESS), r"data\[0\] must be a torch tensor"),
        (lambda: training.train_discrete(torch.nn.Linear(2, 2), array, Masked(2)), r"tokens\[0\] must be a torch"),
    ):
        with pytest.raises(TypeError, match=what):
            make()


def test_value_decoding_wants_a_sampler():
    with pytest.raises(TypeError, match="a ReverseDiffusion, not a Denoiser"):
        ValueDecoding(DENOISER, proposals=4)  # type: ignore[arg-type]


def test_a_sampler_of_tokens_names_what_does_not_fit():
    process = Masked(2)
    model = joint(process, torch.full((2, 2), 0.25))
    for kwargs, what in (
        ({"steps": 5.0}, "whole number"),
        ({"steps": [0.9, 0.1]}, "a tensor"),
        ({"rule": "ordered"}, "rule must be a rule"),
        ({"given": [0, -1]}, "given must be a tensor"),
    ):
        with pytest.raises(TypeError, match=what):
            ReverseDiscrete(model, **{"steps": 2, **kwargs})


def test_a_tabulated_process_prints_without_its_table():
    assert len(repr(Tabulated(torch.linspace(0.99, 0.01, 1000)))) < 100


@pytest.mark.parametrize("make", [reverse, guided, adaptive])
def test_a_model_of_other_images_is_told_by_their_shape(make):
    """Of a model of two numbers, images of three: the shape is named, and torch's own words with it."""
    with pytest.raises(motes.MotesError, match=r"images of shape \(3,\): give the sampler the `shape`.*must match"):
        motes.sample(make(shape=(3,)), 10, seed=0, progress=False)


@pytest.mark.parametrize("words", ["CUDA out of memory: max_split_size_mb", "an illegal instruction"])
def test_what_else_a_model_raises_is_its_own(words):
    def broken(x, t):
        raise RuntimeError(words)

    with pytest.raises(RuntimeError, match=words):
        Denoiser(broken, PROCESS).data(torch.zeros(2, 2), 0.5)
