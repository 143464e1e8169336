"""Linear operators, one file each."""

from motes.diffusion.inverse.operators.blur import Blur as Blur
from motes.diffusion.inverse.operators.downsample import Downsample as Downsample
from motes.diffusion.inverse.operators.fourier import Fourier as Fourier
from motes.diffusion.inverse.operators.function import Function as Function
from motes.diffusion.inverse.operators.function import from_deepinv as from_deepinv
from motes.diffusion.inverse.operators.mask import Mask as Mask
from motes.diffusion.inverse.operators.matrix import Matrix as Matrix
from motes.diffusion.inverse.operators.radon import Radon as Radon
