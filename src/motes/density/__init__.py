"""Sampling from densities: posteriors and their evidence, many chains, populations, rare events, expectations."""

from motes.density.amis import AMIS
from motes.density.annealing.ais import AnnealedImportanceSampling
from motes.density.annealing.data_annealing import DataAnnealing, evidence_path
from motes.density.annealing.persistent import PersistentSampling
from motes.density.annealing.tempering import Tempering
from motes.density.annealing.waste_free import WasteFree
from motes.density.demo import breast_cancer
from motes.density.differential_privacy import PrivateRelease
from motes.density.eki import EnsembleKalman, GaussianData
from motes.density.estimates.bridge import bridge_sampling
from motes.density.estimates.global_sensitivity import sensitivity, sobol_indices
from motes.density.estimates.path_sampling import path_sampling
from motes.density.estimates.stein import kernel_stein_discrepancy, stein_discrepancy, stein_thinned, stein_thinning
from motes.density.follmer import Follmer
from motes.density.markov.chains import Chains
from motes.density.markov.parallel_tempering import ParallelTempering
from motes.density.nested.nested import NestedSampling
from motes.density.rare.cross_entropy import CrossEntropy
from motes.density.rare.splitting import Splitting
from motes.density.self_repellent import SelfRepellentWalk
from motes.density.walk_jump import WalkJump

__all__ = [
    "AMIS",
    "AnnealedImportanceSampling",
    "Chains",
    "CrossEntropy",
    "DataAnnealing",
    "EnsembleKalman",
    "Follmer",
    "GaussianData",
    "NestedSampling",
    "ParallelTempering",
    "PersistentSampling",
    "PrivateRelease",
    "SelfRepellentWalk",
    "Splitting",
    "Tempering",
    "WalkJump",
    "WasteFree",
    "breast_cancer",
    "bridge_sampling",
    "evidence_path",
    "kernel_stein_discrepancy",
    "path_sampling",
    "sensitivity",
    "sobol_indices",
    "stein_discrepancy",
    "stein_thinned",
    "stein_thinning",
]
