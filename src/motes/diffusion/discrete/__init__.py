"""Discrete diffusion: noising chains on tokens, models of them, and samplers whose weights are right."""

from motes.diffusion.discrete.model import MarkovLaw as MarkovLaw
from motes.diffusion.discrete.model import TokenModel as TokenModel
from motes.diffusion.discrete.model import joint as joint
from motes.diffusion.discrete.process import Masked as Masked
from motes.diffusion.discrete.process import Rates as Rates
from motes.diffusion.discrete.process import TokenProcess as TokenProcess
from motes.diffusion.discrete.process import Uniform as Uniform
