"""Relatives of diffusion: reflected and Poisson noise, degradations without noise, blends, chains that corrupt."""

from motes.diffusion.cousins.blending import alpha_blending as alpha_blending
from motes.diffusion.cousins.cold import cold_diffusion as cold_diffusion
from motes.diffusion.cousins.poisson import PoissonStart as PoissonStart
from motes.diffusion.cousins.poisson import poisson_empirical as poisson_empirical
from motes.diffusion.cousins.poisson import poisson_noised as poisson_noised
from motes.diffusion.cousins.reflected import Reflected as Reflected
from motes.diffusion.cousins.reflected_sampler import ReflectedDiffusion as ReflectedDiffusion
from motes.diffusion.cousins.walkback import CorruptDenoise as CorruptDenoise
