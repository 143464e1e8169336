"""Fitting networks, for every domain: plan, loop, objectives, first weights and small networks."""

from motes.learn.initial import build, initialise
from motes.learn.loop import Fitted, fit
from motes.learn.objective import Diverged, Objective
from motes.learn.plan import Plan
from motes.learn.points import PointGenerator, PointNetwork

__all__ = ["Diverged", "Fitted", "Objective", "Plan", "PointGenerator", "PointNetwork", "build", "fit", "initialise"]
