"""Relatives of diffusion: reflected and Poisson noise, degradations without noise, blends, chains that corrupt."""

from motes.diffusion.cousins.blending import alpha_blending
from motes.diffusion.cousins.cold import cold_diffusion
from motes.diffusion.cousins.poisson import PoissonStart, poisson_empirical, poisson_noised
from motes.diffusion.cousins.reflected import Reflected
from motes.diffusion.cousins.reflected_sampler import ReflectedDiffusion
from motes.diffusion.cousins.walkback import CorruptDenoise

__all__ = [
    "CorruptDenoise",
    "PoissonStart",
    "Reflected",
    "ReflectedDiffusion",
    "alpha_blending",
    "cold_diffusion",
    "poisson_empirical",
    "poisson_noised",
]
