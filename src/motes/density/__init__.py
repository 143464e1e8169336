"""Sampling from densities: a log-likelihood with a prior, and tempering from one to the other."""

from motes.density.chains import Chains
from motes.density.density import Density
from motes.density.law import Law
from motes.density.tempering import Tempering

__all__ = ["Chains", "Density", "Law", "Tempering"]
