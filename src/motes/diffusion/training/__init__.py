"""Training: denoisers of all kinds, energies, and generators that take one step."""

from motes.diffusion.training.ambient import MissingParts as MissingParts
from motes.diffusion.training.ambient import NoisyData as NoisyData
from motes.diffusion.training.conservative import asymmetry as asymmetry
from motes.diffusion.training.denoising import Denoising as Denoising
from motes.diffusion.training.drifting import Drift as Drift
from motes.diffusion.training.drifting import Drifting as Drifting
from motes.diffusion.training.drifting import flow as flow
from motes.diffusion.training.energy import Distillation as Distillation
from motes.diffusion.training.energy import Energy as Energy
from motes.diffusion.training.fit import Fitted as Fitted
from motes.diffusion.training.fit import Plan as Plan
from motes.diffusion.training.fit import fit as fit
from motes.diffusion.training.objective import Diverged as Diverged
from motes.diffusion.training.objective import Objective as Objective
from motes.diffusion.training.scaled import Scaled as Scaled
from motes.diffusion.training.tokens import TokenDenoising as TokenDenoising
from motes.diffusion.training.train import SelfConditioned as SelfConditioned
from motes.diffusion.training.train import train as train
from motes.diffusion.training.train import train_discrete as train_discrete
