"""Sampling from densities: a log-likelihood with a prior, and tempering from one to the other."""

from motes.density.density import Density
from motes.density.law import Law
from motes.density.tempering import Tempering

__all__ = ["Density", "Law", "Tempering"]
