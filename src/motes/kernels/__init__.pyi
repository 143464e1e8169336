"""Markov kernels on densities, one file each."""

# written by `make golden`
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.baoab import BAOAB
from motes.kernels.barker import Barker
from motes.kernels.chees import ChEES
from motes.kernels.delayed import DelayedAcceptance
from motes.kernels.discrete_langevin import DiscreteLangevin
from motes.kernels.elliptical import EllipticalSlice
from motes.kernels.entropy import EntropyMCMC
from motes.kernels.flip import Flip
from motes.kernels.gibbs import Gibbs
from motes.kernels.gwg import GibbsWithGradients
from motes.kernels.hmc import HMC
from motes.kernels.independence import IndependenceMetropolis
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, find_kernel, kernels, mean_acceptance, metropolis, select
from motes.kernels.mala import MALA
from motes.kernels.malt import MALT
from motes.kernels.mams import MAMS
from motes.kernels.mclmc import MCLMC
from motes.kernels.meads import MEADS
from motes.kernels.moves import Moved, move
from motes.kernels.nuts import NUTS
from motes.kernels.pcn import PCN
from motes.kernels.pcn_langevin import PCNLangevin
from motes.kernels.polar import PolarSlice
from motes.kernels.random_walk import RandomWalk
from motes.kernels.score_repellent import ScoreRepellent
from motes.kernels.slice import Slice
from motes.kernels.stretch import Stretch
from motes.kernels.tally import Tally, Undefined, told
from motes.kernels.ula import ULA
from motes.kernels.underdamped import Underdamped

__all__ = [
    "BAOAB",
    "Barker",
    "ChEES",
    "DelayedAcceptance",
    "DiscreteLangevin",
    "EllipticalSlice",
    "EntropyMCMC",
    "Flip",
    "Gibbs",
    "GibbsWithGradients",
    "HMC",
    "IndependenceMetropolis",
    "Kernel",
    "MALA",
    "MALT",
    "MAMS",
    "MCLMC",
    "MEADS",
    "Moved",
    "NUTS",
    "PCN",
    "PCNLangevin",
    "Parameters",
    "PolarSlice",
    "Preconditioned",
    "RandomWalk",
    "ScoreRepellent",
    "Slice",
    "State",
    "Stretch",
    "Sweep",
    "Tally",
    "Target",
    "ULA",
    "Undefined",
    "Underdamped",
    "accepted",
    "find_kernel",
    "fit_scale",
    "kernels",
    "mean_acceptance",
    "metropolis",
    "move",
    "scaled",
    "select",
    "told",
]
