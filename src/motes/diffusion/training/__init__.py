"""Training: denoisers of all kinds, energies, and generators that take one step."""

from motes.diffusion.training.ambient import MissingParts, NoisyData
from motes.diffusion.training.conservative import asymmetry
from motes.diffusion.training.denoising import Denoising
from motes.diffusion.training.drifting import Drift, Drifting, flow
from motes.diffusion.training.energy import Distillation, Energy
from motes.diffusion.training.scaled import Scaled
from motes.diffusion.training.tokens import TokenDenoising
from motes.diffusion.training.train import SelfConditioned, train, train_discrete

__all__ = [
    "Denoising",
    "Distillation",
    "Drift",
    "Drifting",
    "Energy",
    "MissingParts",
    "NoisyData",
    "Scaled",
    "SelfConditioned",
    "TokenDenoising",
    "asymmetry",
    "flow",
    "train",
    "train_discrete",
]
