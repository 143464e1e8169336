"""Relatives of diffusion: reflected and Poisson noise, degradations without noise, blends, chains that corrupt."""

from motes.diffusion.corruptions.blending import alpha_blending
from motes.diffusion.corruptions.cold import cold_diffusion
from motes.diffusion.corruptions.poisson import PoissonStart, poisson_empirical, poisson_noised
from motes.diffusion.corruptions.reflected import Reflected
from motes.diffusion.corruptions.reflected_sampler import ReflectedDiffusion
from motes.diffusion.corruptions.walkback import CorruptDenoise

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
