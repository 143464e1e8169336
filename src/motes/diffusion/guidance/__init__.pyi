"""Guidance: rules for how far the mean of each denoising step is moved, and guesses of what a path is worth."""

# written by `make golden`
from motes.diffusion.evaluation.context import Guidance, StepContext, Twist, guidances
from motes.diffusion.guidance.control import Modulation
from motes.diffusion.guidance.control import ReferenceControl
from motes.diffusion.guidance.event import Event
from motes.diffusion.guidance.function import FunctionGuidance
from motes.diffusion.guidance.minority import Minority
from motes.diffusion.guidance.minority import rarity
from motes.diffusion.guidance.training_free import TrainingFree
from motes.diffusion.guidance.training_free import diffusion_posterior
from motes.diffusion.guidance.training_free import freedom
from motes.diffusion.guidance.training_free import loss_guided
from motes.diffusion.guidance.training_free import manifold_preserving
from motes.diffusion.guidance.training_free import universal
from motes.diffusion.guidance.tuning import Tuned, tune
from motes.diffusion.guidance.value import ValueGradient

__all__ = [
    "Event",
    "FunctionGuidance",
    "Guidance",
    "Minority",
    "Modulation",
    "ReferenceControl",
    "StepContext",
    "TrainingFree",
    "Tuned",
    "Twist",
    "ValueGradient",
    "diffusion_posterior",
    "freedom",
    "guidances",
    "loss_guided",
    "manifold_preserving",
    "rarity",
    "tune",
    "universal",
]
