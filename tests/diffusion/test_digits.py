"""The digits that come with the package: what they are, and that steering agrees with brute force."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import motes
from motes.core import tree
from motes.diffusion import demo, load
from motes.diffusion.denoisers import pretrained
from motes.errors import UnknownName

DIGIT, STEPS = 3, 25


@pytest.fixture(scope="module")
def unsteered():
    """512 images of the model itself, and the classifier's probabilities (512, 10)."""
    model = dataclasses.replace(demo.steered_digits(DIGIT, steps=STEPS), reward=None, guidance=None)
    images = motes.sample(model, 512, seed=20, progress=False).view
    return images, load("digits-classifier")(images).exp().double()


def test_the_weights_are_small_and_loading_draws_nothing():
    files = list((Path(pretrained.__file__).parents[1] / "weights").glob("*.safetensors"))
    assert len(files) == len(pretrained.MODELS) and max(f.stat().st_size for f in files) < 2_000_000
    before = torch.get_rng_state()
    for name in pretrained.MODELS:
        load(name)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(UnknownName, match="no diffusion model is called 'mnist'; there are: digits, digits-classifier"):
        load("mnist")
    with pytest.raises(ValueError, match="0 to 9"):
        demo.steered_digits(10)


def test_the_classifier_knows_the_digits():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.as_tensor(data.images / 8 - 1, dtype=torch.float32)[:, None]
    right = load("digits-classifier")(images).argmax(1) == torch.as_tensor(data.target)
    assert float(right.double().mean()) > 0.97


def test_the_denoiser_draws_digits(unsteered):
    """Every class appears, most images are clearly of one, and pixels have the data's mean and spread."""
    images, p = unsteered
    assert bool((p.mean(0) > 0.03).all()) and float(p.max(1).values.mean()) > 0.9
    data = pytest.importorskip("sklearn.datasets").load_digits().images / 8 - 1
    assert abs(float(images.mean()) - data.mean()) < 0.05 and abs(float(images.std()) - data.std()) < 0.05
    assert float(images.min()) > -1.5 and float(images.max()) < 1.5


def test_steered_images_are_of_the_digit_and_the_normaliser_agrees_with_brute_force(unsteered):
    """Both estimates within 4 of their joint standard errors; the run's own standard error exists."""
    _, p = unsteered
    truth, relative = float(p[:, DIGIT].mean()), float(p[:, DIGIT].std() / p[:, DIGIT].mean()) / math.sqrt(len(p))
    run = motes.sample(demo.steered_digits(DIGIT, steps=STEPS), 64, seed=1, progress=False)
    assert math.isfinite(run.log_evidence_se)
    assert abs(run.log_evidence - math.log(truth)) < 4 * math.hypot(relative, run.log_evidence_se)
    of_the_digit = run.mean(lambda images: load("digits-classifier")(images)[:, DIGIT].exp())
    assert float(of_the_digit) > 0.9
    assert run.ess > 16 and len(run.particles.root.unique()) > 12


def test_digits_do_not_depend_on_how_the_population_is_cut():
    """Convolutions in parts of 8: the same bits for 16 particles and for any 5 of them."""
    model, rng = demo.steered_digits(DIGIT, steps=4, micro_batch=8), motes.Rng(2)

    def walk(rng, n):
        particles = model.init(rng.at("init", step=0), n)
        while not model.done(particles):
            particles = model.step(rng.at("step", step=particles.t + 1), particles)
        return particles

    whole, ids = walk(rng, 16), torch.tensor([3, 15, 8, 0, 9])
    part = walk(rng.shard(ids), len(ids))
    for walked in (part, whole):  # what tells the error of the noise left is made from other particles
        walked.x["coarse"] = {k: v for k, v in walked.x["coarse"].items() if k not in ("plus", "minus")}
    assert tree.equal(part.x, tree.take(whole.x, ids)) and torch.equal(part.log_weight, whole.log_weight[ids])
