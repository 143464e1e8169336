"""Discrete diffusion: noising chains on tokens, models of them, and samplers whose weights are right."""

from motes.diffusion.discrete.blackout import Blackout, ReverseBlackout
from motes.diffusion.discrete.composition import TokenComposition
from motes.diffusion.discrete.few_steps import FewSteps, few_steps
from motes.diffusion.discrete.fine_tuning import FineTuned, fine_tune
from motes.diffusion.discrete.guidance import FunctionTilt, LocalReward, RewardGradient, TokenGuidance
from motes.diffusion.discrete.model import MarkovLaw, TokenModel, joint
from motes.diffusion.discrete.order import Ordered
from motes.diffusion.discrete.posterior import Posterior, TauLeap
from motes.diffusion.discrete.process import Masked, Rates, TokenProcess, Uniform
from motes.diffusion.discrete.remask import Remask
from motes.diffusion.discrete.reverse import ReverseDiscrete
from motes.diffusion.discrete.routed import Routed
from motes.diffusion.discrete.simulate import first_hitting, uniformised
from motes.diffusion.discrete.split_gibbs import SplitGibbs
from motes.diffusion.discrete.step import StepRule
from motes.diffusion.discrete.total_correlation import chain_law, parallel_cost, total_correlation

__all__ = [
    "Blackout",
    "FewSteps",
    "FineTuned",
    "FunctionTilt",
    "LocalReward",
    "MarkovLaw",
    "Masked",
    "Ordered",
    "Posterior",
    "Rates",
    "Remask",
    "ReverseBlackout",
    "ReverseDiscrete",
    "RewardGradient",
    "Routed",
    "SplitGibbs",
    "StepRule",
    "TauLeap",
    "TokenComposition",
    "TokenGuidance",
    "TokenModel",
    "TokenProcess",
    "Uniform",
    "chain_law",
    "few_steps",
    "fine_tune",
    "first_hitting",
    "joint",
    "parallel_cost",
    "total_correlation",
    "uniformised",
]
