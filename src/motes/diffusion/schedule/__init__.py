"""Schedules: times that suit a model, spreads that suit a purpose, and first steps that need no model."""

from motes.diffusion.schedule.align import align_your_steps as align_your_steps
from motes.diffusion.schedule.spread import deterministic_spread as deterministic_spread
from motes.diffusion.schedule.spread import steps_for_spread as steps_for_spread
from motes.diffusion.schedule.teleport import Teleport as Teleport
