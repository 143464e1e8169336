"""Sampling from densities: posteriors and their evidence, many chains, populations, rare events, expectations."""

from motes.density.adapters import (
    from_distribution,
    from_jax,
    from_numpyro,
    from_pymc,
    from_pyro,
    from_stan,
    from_torch,
)
from motes.density.ais import AnnealedImportanceSampling
from motes.density.amis import AMIS
from motes.density.bridge import bridge_sampling
from motes.density.chains import Chains
from motes.density.cross_entropy import CrossEntropy
from motes.density.data_annealing import DataAnnealing, evidence_path
from motes.density.density import Density
from motes.density.discrete import Discrete
from motes.density.eki import EnsembleKalman, GaussianData
from motes.density.follmer import Follmer
from motes.density.global_sensitivity import sensitivity, sobol_indices
from motes.density.inner_filter import BootstrapFilter, InnerFilter
from motes.density.laplace import Laplace
from motes.density.law import Law
from motes.density.low_discrepancy import LowDiscrepancy
from motes.density.nested import NestedSampling
from motes.density.outer import SMC2
from motes.density.parallel_tempering import ParallelTempering
from motes.density.path_sampling import path_sampling
from motes.density.pathfinder import Pathfinder
from motes.density.persistent import PersistentSampling
from motes.density.private import PrivateRelease
from motes.density.proposal import Mixture, Started, fit_mixture
from motes.density.self_repellent import SelfRepellentWalk
from motes.density.splitting import Splitting
from motes.density.start import Approximation, Flow, From
from motes.density.stein import kernel_stein_discrepancy, stein_discrepancy, stein_thinned, stein_thinning
from motes.density.tempering import Tempering
from motes.density.walk_jump import WalkJump
from motes.density.waste_free import WasteFree

__all__ = [
    "AMIS",
    "SMC2",
    "AnnealedImportanceSampling",
    "Approximation",
    "BootstrapFilter",
    "Chains",
    "CrossEntropy",
    "DataAnnealing",
    "Density",
    "Discrete",
    "EnsembleKalman",
    "Flow",
    "Follmer",
    "From",
    "GaussianData",
    "InnerFilter",
    "Laplace",
    "Law",
    "LowDiscrepancy",
    "Mixture",
    "NestedSampling",
    "ParallelTempering",
    "Pathfinder",
    "PersistentSampling",
    "PrivateRelease",
    "SelfRepellentWalk",
    "Splitting",
    "Started",
    "Tempering",
    "WalkJump",
    "WasteFree",
    "bridge_sampling",
    "evidence_path",
    "fit_mixture",
    "from_distribution",
    "from_jax",
    "from_numpyro",
    "from_pymc",
    "from_pyro",
    "from_stan",
    "from_torch",
    "kernel_stein_discrepancy",
    "path_sampling",
    "sensitivity",
    "sobol_indices",
    "stein_discrepancy",
    "stein_thinned",
    "stein_thinning",
]
