"""Guidance: rules for how far the mean of each denoising step is moved, and guesses of what a path is worth."""

from motes.diffusion.evaluation.look import Guidance, Look, Twist
from motes.diffusion.guidance.control import Modulation, ReferenceControl
from motes.diffusion.guidance.event import Event
from motes.diffusion.guidance.given import Given
from motes.diffusion.guidance.minority import Minority, rarity
from motes.diffusion.guidance.training_free import (
    TrainingFree,
    diffusion_posterior,
    freedom,
    loss_guided,
    manifold_preserving,
    universal,
)
from motes.diffusion.guidance.tuning import Tuned, tune
from motes.diffusion.guidance.value import ValueGradient

__all__ = [
    "Event",
    "Given",
    "Guidance",
    "Look",
    "Minority",
    "Modulation",
    "ReferenceControl",
    "TrainingFree",
    "Tuned",
    "Twist",
    "ValueGradient",
    "diffusion_posterior",
    "freedom",
    "loss_guided",
    "manifold_preserving",
    "rarity",
    "tune",
    "universal",
]
