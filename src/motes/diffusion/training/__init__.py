"""Training: denoisers of all kinds, energies, and generators that take one step."""

from motes.diffusion.training.conservative import asymmetry as asymmetry
from motes.diffusion.training.denoising import Denoising as Denoising
from motes.diffusion.training.fit import Fitted as Fitted
from motes.diffusion.training.fit import Plan as Plan
from motes.diffusion.training.fit import fit as fit
from motes.diffusion.training.objective import Diverged as Diverged
from motes.diffusion.training.objective import Objective as Objective
