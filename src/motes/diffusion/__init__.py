"""Diffusion models: processes, denoisers, and reverse diffusion whose samples are steered and weighed."""

from motes.diffusion import cousins, demo, diagnostics, discrete, guidance, inverse, networks, schedule, training
from motes.diffusion.adapters.diffusers import from_diffusers
from motes.diffusion.adapters.onnx import from_onnx
from motes.diffusion.adaptive import AdaptiveReward
from motes.diffusion.best_of import BestOf, best_of
from motes.diffusion.calibrated import calibrated
from motes.diffusion.composition import Composition
from motes.diffusion.compositions import annealed, blend, classifier_free, geometric_mean, product, rl_guidance
from motes.diffusion.coupling import Coupling, coupling_test
from motes.diffusion.denoiser import Denoiser
from motes.diffusion.driftlite import DriftLite
from motes.diffusion.edm import EDM, preconditioned
from motes.diffusion.energy import energy_denoiser
from motes.diffusion.exact import empirical, gaussian, mixture
from motes.diffusion.few_steps import learned_steps
from motes.diffusion.flow import ProbabilityFlow
from motes.diffusion.guided import Guided
from motes.diffusion.interpolant import Interpolant, RectifiedFlow
from motes.diffusion.iterated import Twisted, affine, iterated_twisting, radial
from motes.diffusion.likelihood import Likelihood, log_likelihood
from motes.diffusion.process import Process, VarianceExploding, VariancePreserving
from motes.diffusion.reverse import ReverseDiffusion
from motes.diffusion.start import Start
from motes.diffusion.tabulated import Tabulated
from motes.diffusion.tilted_flow import TiltedFlow
from motes.diffusion.transition import transitions
from motes.diffusion.value_decoding import ValueDecoding
from motes.diffusion.zoo import load

__all__ = [
    "EDM",
    "AdaptiveReward",
    "BestOf",
    "Composition",
    "Coupling",
    "Denoiser",
    "DriftLite",
    "Guided",
    "Interpolant",
    "Likelihood",
    "ProbabilityFlow",
    "Process",
    "RectifiedFlow",
    "ReverseDiffusion",
    "Start",
    "Tabulated",
    "TiltedFlow",
    "Twisted",
    "ValueDecoding",
    "VarianceExploding",
    "VariancePreserving",
    "affine",
    "annealed",
    "best_of",
    "blend",
    "calibrated",
    "classifier_free",
    "coupling_test",
    "cousins",
    "demo",
    "diagnostics",
    "discrete",
    "empirical",
    "energy_denoiser",
    "from_diffusers",
    "from_onnx",
    "gaussian",
    "geometric_mean",
    "guidance",
    "inverse",
    "iterated_twisting",
    "learned_steps",
    "load",
    "log_likelihood",
    "mixture",
    "networks",
    "preconditioned",
    "product",
    "radial",
    "rl_guidance",
    "schedule",
    "training",
    "transitions",
]
