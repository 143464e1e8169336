"""Diagnostics of denoisers, of samplers' steps and of weighted runs, each with an error bar."""

from motes.core.estimate.distances.frechet import frechet_distance
from motes.diffusion.diagnostics.calibration import calibration
from motes.diffusion.diagnostics.conservative import non_conservativeness
from motes.diffusion.diagnostics.divergence import kl_divergence, mutual_information
from motes.diffusion.diagnostics.entropy import entropy_bound, entropy_rate
from motes.diffusion.diagnostics.population import by_noise_level
from motes.diffusion.diagnostics.ranks import posterior_ranks
from motes.diffusion.diagnostics.stepping import step_errors
from motes.diffusion.diagnostics.summary import diagnose

__all__ = [
    "by_noise_level",
    "calibration",
    "diagnose",
    "entropy_bound",
    "entropy_rate",
    "frechet_distance",
    "kl_divergence",
    "mutual_information",
    "non_conservativeness",
    "posterior_ranks",
    "step_errors",
]
