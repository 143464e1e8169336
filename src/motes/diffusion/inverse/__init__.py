"""Inverse problems: measurements of images, and the images behind them."""

from motes.diffusion.inverse.acquisition import ActiveDiffusion as ActiveDiffusion
from motes.diffusion.inverse.observation import Observation as Observation
from motes.diffusion.inverse.observation import posterior as posterior
from motes.diffusion.inverse.operator import LinearOperator as LinearOperator
from motes.diffusion.inverse.operators import Blur as Blur
from motes.diffusion.inverse.operators import Downsample as Downsample
from motes.diffusion.inverse.operators import Fourier as Fourier
from motes.diffusion.inverse.operators import Function as Function
from motes.diffusion.inverse.operators import Mask as Mask
from motes.diffusion.inverse.operators import Matrix as Matrix
from motes.diffusion.inverse.operators import Radon as Radon
from motes.diffusion.inverse.operators import from_deepinv as from_deepinv
