"""Diffusion models: processes, denoisers, and reverse diffusion whose samples are steered and weighed."""

from motes.diffusion import demo as demo
from motes.diffusion import guidance as guidance
from motes.diffusion import inverse as inverse
from motes.diffusion.adaptive import AdaptiveReward as AdaptiveReward
from motes.diffusion.best_of import BestOf as BestOf
from motes.diffusion.best_of import best_of as best_of
from motes.diffusion.denoiser import Denoiser as Denoiser
from motes.diffusion.exact import gaussian as gaussian
from motes.diffusion.exact import mixture as mixture
from motes.diffusion.guided import Guided as Guided
from motes.diffusion.iterated import Twisted as Twisted
from motes.diffusion.iterated import affine as affine
from motes.diffusion.iterated import iterated_twisting as iterated_twisting
from motes.diffusion.iterated import radial as radial
from motes.diffusion.process import Process as Process
from motes.diffusion.process import VarianceExploding as VarianceExploding
from motes.diffusion.process import VariancePreserving as VariancePreserving
from motes.diffusion.reverse import ReverseDiffusion as ReverseDiffusion
from motes.diffusion.transition import transitions as transitions
from motes.diffusion.value_decoding import ValueDecoding as ValueDecoding
from motes.diffusion.zoo import load as load
