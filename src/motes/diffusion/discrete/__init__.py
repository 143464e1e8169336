"""Discrete diffusion: noising chains on tokens, models of them, and samplers whose weights are right."""

from motes.diffusion.discrete.blackout import Blackout as Blackout
from motes.diffusion.discrete.blackout import ReverseBlackout as ReverseBlackout
from motes.diffusion.discrete.guidance import GivenTilt as GivenTilt
from motes.diffusion.discrete.guidance import LocalReward as LocalReward
from motes.diffusion.discrete.guidance import RewardGradient as RewardGradient
from motes.diffusion.discrete.guidance import TokenGuidance as TokenGuidance
from motes.diffusion.discrete.model import MarkovLaw as MarkovLaw
from motes.diffusion.discrete.model import TokenModel as TokenModel
from motes.diffusion.discrete.model import joint as joint
from motes.diffusion.discrete.order import Ordered as Ordered
from motes.diffusion.discrete.posterior import Posterior as Posterior
from motes.diffusion.discrete.posterior import TauLeap as TauLeap
from motes.diffusion.discrete.process import Masked as Masked
from motes.diffusion.discrete.process import Rates as Rates
from motes.diffusion.discrete.process import TokenProcess as TokenProcess
from motes.diffusion.discrete.process import Uniform as Uniform
from motes.diffusion.discrete.remask import Remask as Remask
from motes.diffusion.discrete.reverse import ReverseDiscrete as ReverseDiscrete
from motes.diffusion.discrete.routed import Routed as Routed
from motes.diffusion.discrete.simulate import first_hitting as first_hitting
from motes.diffusion.discrete.simulate import uniformised as uniformised
from motes.diffusion.discrete.step import Rule as Rule
from motes.diffusion.discrete.total_correlation import chain_law as chain_law
from motes.diffusion.discrete.total_correlation import parallel_cost as parallel_cost
from motes.diffusion.discrete.total_correlation import total_correlation as total_correlation
