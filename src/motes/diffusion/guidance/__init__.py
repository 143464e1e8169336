"""Guidance: rules for how far the mean of each denoising step is moved, and what such a rule may look at."""

from motes.diffusion.guidance.given import Given as Given
from motes.diffusion.guidance.value import ValueGradient as ValueGradient
from motes.diffusion.look import Guidance as Guidance
from motes.diffusion.look import Look as Look
from motes.diffusion.look import Twist as Twist
