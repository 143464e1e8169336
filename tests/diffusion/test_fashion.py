"""The clothes that come with the package: what the models know, and that steering agrees with brute force."""

import math

import pytest
import torch

import motes
from motes.diffusion import load
from motes.diffusion.denoisers.pretrained import FASHION_CLASSES, FASHION_PROCESS, FASHION_SHAPE
from motes.diffusion.training.denoising import noised
from motes.errors import UnknownName


def drawn(label, many: int, steps: int = 20) -> torch.Tensor:
    model = motes.ReverseDiffusion(load("fashion", label), steps, shape=FASHION_SHAPE, micro_batch=32)
    return motes.sample(model, many, seed=3, progress=False).view


def test_images_of_a_class_are_of_the_class():
    """The classifier, which never saw an image of the model at its end, agrees for most of them."""
    classifier = load("fashion-classifier")
    for label in ("trouser", "bag", "ankle boot"):
        p = classifier(drawn(label, 16)).exp()
        assert float(p[:, FASHION_CLASSES.index(label)].mean()) > 0.75
    assert load("fashion", 8).name == load("fashion", "bag").name == "fashion: bag"


def test_labels_that_are_not_there_are_refused():
    with pytest.raises(UnknownName, match="bag"):
        load("fashion", "bags")
    with pytest.raises(UnknownName, match="label of fashion"):
        load("fashion", 10)
    with pytest.raises(ValueError, match="no labels"):
        load("digits", 3)  # type: ignore[call-overload]


@pytest.mark.slow
def test_the_model_of_all_draws_all_classes_and_steering_agrees():
    """Shares of classes, pixels like the data's (-.43, .71), and a class's log-probability by weights and counting."""
    images, classifier = drawn(None, 256), load("fashion-classifier")
    p = classifier(images).exp().double()
    assert float(p.max(1).values.mean()) > 0.65 and int((p.mean(0) > 0.02).sum()) >= 9
    assert abs(float(images.mean()) + 0.43) < 0.06 and abs(float(images.std()) - 0.71) < 0.1
    bag = FASHION_CLASSES.index("bag")
    truth, relative = float(p[:, bag].mean()), float(p[:, bag].std() / p[:, bag].mean()) / math.sqrt(len(p))
    model = motes.ReverseDiffusion(
        load("fashion"),
        20,
        reward=lambda x: classifier(x)[:, bag],
        shape=FASHION_SHAPE,
        schedule="constant",
        micro_batch=32,
    )
    run = motes.sample(model, 128, seed=1, progress=False)
    assert abs(run.log_evidence - math.log(truth)) < 4.9 * math.hypot(relative, run.log_evidence_se)
    assert float(run.mean(lambda x: classifier(x)[:, bag].exp())) > 0.8


def test_the_label_helps_the_denoiser():
    """The squared error of images of a class (made by the model) is lower with the class than with another."""
    boots = drawn("ankle boot", 16)
    at = noised(motes.Rng(0), FASHION_PROCESS, boots)
    errors = {}
    for label in ("ankle boot", "dress"):
        errors[label] = float((load("fashion", label).data(at.x, at.t) - boots).square().mean())
    assert errors["ankle boot"] < 0.9 * errors["dress"]
