"""Small networks: for images of 8 x 8 and 28 x 28, points of a plane and sequences of tokens."""

from motes.diffusion.networks.digits import Classifier, ResidualBlock, UNet
from motes.diffusion.networks.images import ImageClassifier, ImageUNet
from motes.diffusion.networks.labelled import Labelled
from motes.diffusion.networks.plane import PointGenerator, PointNetwork
from motes.diffusion.networks.sequence import SequenceNetwork
from motes.diffusion.networks.start import build, initialise

__all__ = [
    "Classifier",
    "ImageClassifier",
    "ImageUNet",
    "Labelled",
    "PointGenerator",
    "PointNetwork",
    "ResidualBlock",
    "SequenceNetwork",
    "UNet",
    "build",
    "initialise",
]
