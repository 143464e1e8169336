"""Diagnostics of denoisers, of samplers' steps and of weighted runs, each with an error bar."""

from motes.diffusion.diagnostics.calibration import calibration as calibration
from motes.diffusion.diagnostics.conservative import non_conservativeness as non_conservativeness
from motes.diffusion.diagnostics.distances import frechet_distance as frechet_distance
from motes.diffusion.diagnostics.divergence import kl_divergence as kl_divergence
from motes.diffusion.diagnostics.divergence import mutual_information as mutual_information
from motes.diffusion.diagnostics.entropy import entropy_bound as entropy_bound
from motes.diffusion.diagnostics.entropy import entropy_rate as entropy_rate
from motes.diffusion.diagnostics.population import by_noise_level as by_noise_level
from motes.diffusion.diagnostics.ranks import posterior_ranks as posterior_ranks
from motes.diffusion.diagnostics.stepping import step_errors as step_errors
from motes.diffusion.diagnostics.summary import diagnose as diagnose
