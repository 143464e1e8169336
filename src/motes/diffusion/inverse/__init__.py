"""Inverse problems: measurements of images, and the images behind them."""

from motes.diffusion.inverse.acquisition import ActiveDiffusion as ActiveDiffusion
from motes.diffusion.inverse.observation import Observation as Observation
from motes.diffusion.inverse.observation import posterior as posterior
from motes.diffusion.inverse.operator import Blur as Blur
from motes.diffusion.inverse.operator import Downsample as Downsample
from motes.diffusion.inverse.operator import Fourier as Fourier
from motes.diffusion.inverse.operator import Function as Function
from motes.diffusion.inverse.operator import LinearOperator as LinearOperator
from motes.diffusion.inverse.operator import Mask as Mask
from motes.diffusion.inverse.operator import Matrix as Matrix
from motes.diffusion.inverse.operator import Radon as Radon
from motes.diffusion.inverse.operator import from_deepinv as from_deepinv
