"""Schedules: times that suit a model, spreads that suit a purpose, and first steps that need no model."""

from motes.diffusion.schedule.align import align_your_steps
from motes.diffusion.schedule.spread import deterministic_spread, steps_for_spread
from motes.diffusion.schedule.teleport import Teleport

__all__ = [
    "Teleport",
    "align_your_steps",
    "deterministic_spread",
    "steps_for_spread",
]
