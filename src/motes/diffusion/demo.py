"""A reward-tilted diffusion model that runs in seconds: handwritten digits, steered to one class."""

from __future__ import annotations

from motes.diffusion.denoisers.pretrained import DIGITS_SHAPE, load
from motes.diffusion.sampling.reverse import Guides, ReverseDiffusion
from motes.errors import MotesError

TITLE, PARTICLES, NEEDS = "Images: digits steered to 3", 256, ()
"""What `motes demo` calls it, how many particles, what must be installed."""


def model() -> ReverseDiffusion:
    """The model of the demonstration."""
    return steered_digits()


def steered_digits(
    digit: int = 3,
    *,
    scale: float = 1.0,
    steps: int = 40,
    guidance: Guides | None = 0.5,
    micro_batch: int = 64,
) -> ReverseDiffusion:
    """Images of a chosen digit from a denoiser that knows no classes, by a classifier's log-probability as reward.

    With `scale=1` the target is the model's law given the class, by Bayes' rule, and the log normaliser is the
    log-probability of the class among the model's images.

    Args:
        digit: the class, 0 to 9.
        scale: what multiplies log p(digit | image).
        steps: steps of the sampler.
        guidance: as for `ReverseDiffusion`; None is without the classifier's gradient. The whole gradient ("reward")
            overshoots: it doubles the spread of the normaliser's estimate, whose rare large values then go unseen.
        micro_batch: images a call of the networks.
    """
    if digit not in range(10):
        raise MotesError(f"digit must be 0 to 9, not {digit}")
    classifier = load("digits-classifier")
    return ReverseDiffusion(
        load("digits"),
        steps,
        reward=lambda images: scale * classifier(images)[:, digit],
        guidance=guidance,
        shape=DIGITS_SHAPE,
        schedule="constant",  # the classifier was taught to judge predictions as they are, so they count in full
        micro_batch=micro_batch,
    )
