"""Diffusion models: processes, denoisers, and reverse diffusion whose samples are steered and weighed."""

# written by `make golden`
from motes.diffusion import corruptions, demo, diagnostics, discrete, guidance, inverse, networks, schedule, training
from motes.diffusion.composing.composition import Composition
from motes.diffusion.composing.compositions import annealed, blend, classifier_free, geometric_mean, product, rl_guidance
from motes.diffusion.composing.driftlite import DriftLite
from motes.diffusion.denoisers.adapters.diffusers import from_diffusers
from motes.diffusion.denoisers.adapters.onnx import from_onnx
from motes.diffusion.denoisers.calibrated import calibrated
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.denoisers.energy import energy_denoiser
from motes.diffusion.denoisers.exact import empirical, gaussian, mixture
from motes.diffusion.denoisers.preconditioned import preconditioned
from motes.diffusion.denoisers.pretrained import DIGITS_PROCESS, DIGITS_SHAPE, FASHION_PROCESS, FASHION_SHAPE, load
from motes.diffusion.flows.coupling import Coupling, coupling_test
from motes.diffusion.flows.flow import ProbabilityFlow
from motes.diffusion.flows.likelihood import Likelihood, log_likelihood
from motes.diffusion.flows.tilted_flow import TiltedFlow
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.initial_law import InitialLaw
from motes.diffusion.processes.interpolant import Interpolant
from motes.diffusion.processes.interpolant import RectifiedFlow
from motes.diffusion.processes.process import Process
from motes.diffusion.processes.process import VarianceExploding
from motes.diffusion.processes.process import VariancePreserving
from motes.diffusion.processes.process import processes as _processes
from motes.diffusion.processes.tabulated import Tabulated
from motes.diffusion.processes.transition import transitions
from motes.diffusion.sampling.adaptive import AdaptiveReward
from motes.diffusion.sampling.best_of import BestOf, best_of
from motes.diffusion.sampling.few_steps import learned_steps
from motes.diffusion.sampling.guided import Guided
from motes.diffusion.sampling.iterated import Twisted, affine, iterated_twisting, radial
from motes.diffusion.sampling.reverse import ReverseDiffusion
from motes.diffusion.sampling.reverse_step import ReverseStep
from motes.diffusion.sampling.value_decoding import ValueDecoding

__all__ = [
    "AdaptiveReward",
    "BestOf",
    "Composition",
    "Coupling",
    "DIGITS_PROCESS",
    "DIGITS_SHAPE",
    "Denoiser",
    "DriftLite",
    "EDM",
    "FASHION_PROCESS",
    "FASHION_SHAPE",
    "Guided",
    "InitialLaw",
    "Interpolant",
    "Likelihood",
    "ProbabilityFlow",
    "Process",
    "RectifiedFlow",
    "ReverseDiffusion",
    "ReverseStep",
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
    "corruptions",
    "coupling_test",
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
