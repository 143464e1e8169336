"""Inverse problems: measurements of images, and the images behind them."""

from motes.diffusion.inverse.acquisition import ActiveDiffusion
from motes.diffusion.inverse.observation import Observation, posterior
from motes.diffusion.inverse.operator import LinearOperator
from motes.diffusion.inverse.operators import Blur, Downsample, Fourier, Function, Mask, Matrix, Radon, from_deepinv

__all__ = [
    "ActiveDiffusion",
    "Blur",
    "Downsample",
    "Fourier",
    "Function",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Observation",
    "Radon",
    "from_deepinv",
    "posterior",
]
