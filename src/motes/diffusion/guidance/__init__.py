"""Guidance: rules for how far the mean of each denoising step is moved, and guesses of what a path is worth."""

from motes.diffusion.guidance.control import Modulation as Modulation
from motes.diffusion.guidance.control import Reference as Reference
from motes.diffusion.guidance.event import Event as Event
from motes.diffusion.guidance.given import Given as Given
from motes.diffusion.guidance.minority import Minority as Minority
from motes.diffusion.guidance.minority import rarity as rarity
from motes.diffusion.guidance.training_free import TrainingFree as TrainingFree
from motes.diffusion.guidance.training_free import diffusion_posterior as diffusion_posterior
from motes.diffusion.guidance.training_free import freedom as freedom
from motes.diffusion.guidance.training_free import loss_guided as loss_guided
from motes.diffusion.guidance.training_free import manifold_preserving as manifold_preserving
from motes.diffusion.guidance.training_free import universal as universal
from motes.diffusion.guidance.tuning import Tuned as Tuned
from motes.diffusion.guidance.tuning import tune as tune
from motes.diffusion.guidance.value import ValueGradient as ValueGradient
from motes.diffusion.look import Guidance as Guidance
from motes.diffusion.look import Look as Look
from motes.diffusion.look import Twist as Twist
