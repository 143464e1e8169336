"""Linear operators, one file each."""

from motes.diffusion.inverse.operators.blur import Blur
from motes.diffusion.inverse.operators.downsample import Downsample
from motes.diffusion.inverse.operators.fourier import Fourier
from motes.diffusion.inverse.operators.function import Function, from_deepinv
from motes.diffusion.inverse.operators.mask import Mask
from motes.diffusion.inverse.operators.matrix import Matrix
from motes.diffusion.inverse.operators.radon import Radon

__all__ = [
    "Blur",
    "Downsample",
    "Fourier",
    "Function",
    "Mask",
    "Matrix",
    "Radon",
    "from_deepinv",
]
