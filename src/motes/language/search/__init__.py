"""Search, diverse texts and texts without replacement; what a decision makes of weighted texts."""

from motes.language.search.arithmetic import Arithmetic
from motes.language.search.poisson_beam import PoissonBeam
from motes.language.search.population import unbiased_mean
from motes.language.search.stochastic_beam import StochasticBeam

__all__ = ["Arithmetic", "PoissonBeam", "StochasticBeam", "unbiased_mean"]
