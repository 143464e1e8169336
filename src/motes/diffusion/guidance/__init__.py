"""Guidance: rules for how far the mean of each denoising step is moved, and guesses of what a path is worth.

A new one is a new file with a `Guidance` or a `Twist`, or a function that makes one, under `@guidances.register`.
"""

from motes.diffusion.evaluation.context import Guidance, StepContext, Twist, guidances
from motes.diffusion.guidance.minority import rarity
from motes.diffusion.guidance.tuning import Tuned, tune

__all__ = ["Guidance", "StepContext", "Tuned", "Twist", "guidances", "rarity", "tune", *guidances.door(globals())]
