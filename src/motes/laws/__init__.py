"""Laws to sample from: densities, priors, tempered and fitted laws, models of other packages."""

from motes.laws.adapters import from_distribution, from_jax, from_numpyro, from_pymc, from_pyro, from_stan, from_torch
from motes.laws.approximation import Approximation, Flow, From
from motes.laws.density import Density
from motes.laws.discrete import Discrete
from motes.laws.fits.laplace import Laplace
from motes.laws.fits.pathfinder import Pathfinder
from motes.laws.fits.proposal import Mixture, Started, fit_mixture
from motes.laws.law import Law
from motes.laws.low_discrepancy import LowDiscrepancy

__all__ = [
    "Approximation",
    "Density",
    "Discrete",
    "Flow",
    "From",
    "Laplace",
    "Law",
    "LowDiscrepancy",
    "Mixture",
    "Pathfinder",
    "Started",
    "fit_mixture",
    "from_distribution",
    "from_jax",
    "from_numpyro",
    "from_pymc",
    "from_pyro",
    "from_stan",
    "from_torch",
]
