"""Diffusion models: processes, denoisers, and reverse diffusion whose samples are steered and weighed."""

from motes.diffusion import demo as demo
from motes.diffusion.denoiser import Denoiser as Denoiser
from motes.diffusion.exact import gaussian as gaussian
from motes.diffusion.exact import mixture as mixture
from motes.diffusion.guided import Guided as Guided
from motes.diffusion.process import Process as Process
from motes.diffusion.process import VarianceExploding as VarianceExploding
from motes.diffusion.process import VariancePreserving as VariancePreserving
from motes.diffusion.reverse import ReverseDiffusion as ReverseDiffusion
from motes.diffusion.transition import transitions as transitions
from motes.diffusion.zoo import load as load
